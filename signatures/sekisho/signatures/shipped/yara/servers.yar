// What is left behind on a server, and what a blackmailer leaves on a desktop.

rule php_web_shell : backdoor
{
    meta:
        description = "PHP page that runs whatever a visitor sends"
        description_ja = "送られた命令を実行する PHP(ウェブシェル)"
        severity = "high"
        confidence = "high"
    strings:
        $php = "<?"
        $direct = /\b(eval|assert|system|passthru|shell_exec|exec|popen)\s*\(\s*(stripslashes\s*\(\s*|base64_decode\s*\(\s*|gzinflate\s*\(\s*){0,3}@?\$_(POST|GET|REQUEST|COOKIE)\s*\[/ nocase
        $packed = /\beval\s*\(\s*(gzinflate|gzuncompress|str_rot13)\s*\(\s*(base64_decode|str_rot13)\s*\(/ nocase
    condition:
        $php and any of ($direct, $packed) and filesize < 2MB
}

rule jsp_web_shell : backdoor
{
    meta:
        description = "JSP page that runs a visitor's parameter as a command"
        description_ja = "送られた命令を実行する JSP(ウェブシェル)"
        severity = "high"
        confidence = "high"
    strings:
        $jsp = "<%"
        $run = /Runtime\.getRuntime\(\)\.exec\(\s*request\.getParameter\(/
    condition:
        $jsp and $run and filesize < 1MB
}

rule ransom_note : ransomware
{
    meta:
        description = "Text of a ransom demand: files encrypted, payment in crypto-currency, a Tor address"
        description_ja = "身代金要求文(ランサムウェア)"
        severity = "high"
        confidence = "high"
    strings:
        $e1 = "files have been encrypted" nocase
        $e2 = "files are encrypted" nocase
        $e3 = "your network has been" nocase
        $p1 = "bitcoin" nocase
        $p2 = "monero" nocase
        $p3 = "decryptor" nocase
        $p4 = "decryption key" nocase
        $t = /[a-z2-7]{16,56}\.onion\b/ nocase
        $w1 = "tor browser" nocase
        $w2 = "do not rename" nocase
        $w3 = "do not try to decrypt" nocase
    condition:
        any of ($e*) and any of ($p*) and $t and any of ($w*) and filesize < 64KB
}
