// Attackers' tools: what runs after the door was opened.

rule mimikatz_strings : credential_theft
{
    meta:
        description = "Mimikatz, a tool that reads passwords from memory"
        description_ja = "パスワード窃取ツール Mimikatz"
        severity = "high"
        confidence = "high"
    strings:
        $m1 = "sekurlsa::logonpasswords" ascii wide nocase
        $m2 = "gentilkiwi" ascii wide nocase
        $m3 = "lsadump::sam" ascii wide nocase
        $m4 = "kerberos::golden" ascii wide nocase
        $m5 = "privilege::debug" ascii wide nocase
        $m6 = "mimidrv.sys" ascii wide nocase
    condition:
        (uint16(0) == 0x5A4D and 2 of them) or (4 of them and filesize < 4MB)
}

rule cobalt_strike_beacon_config : c2
{
    meta:
        description = "Cobalt Strike beacon: its configuration block under its usual one-byte keys (plain it is only in memory)"
        description_ja = "遠隔操作ツール Cobalt Strike の設定領域"
        severity = "high"
        confidence = "high"
    strings:
        $key69 = { 69 68 69 68 69 6B ?? ?? 69 6B 69 68 69 6B ?? ?? 69 6A 69 6B 69 6D ?? ?? ?? ?? 69 6D 69 6B 69 6D ?? ?? ?? ?? 69 6C 69 68 69 6B }
        $key2e = { 2E 2F 2E 2F 2E 2C ?? ?? 2E 2C 2E 2F 2E 2C ?? ?? 2E 2D 2E 2C 2E 2A ?? ?? ?? ?? 2E 2A 2E 2C 2E 2A ?? ?? ?? ?? 2E 2B 2E 2F 2E 2C }
    condition:
        any of them
}

rule reverse_shell_one_liner : backdoor
{
    meta:
        description = "Script that hands a command shell to another machine"
        description_ja = "外部へシェルを渡すスクリプト(リバースシェル)"
        severity = "high"
        confidence = "medium"
    strings:
        $bash = /\b(ba)?sh\s+-i\s*(>&|&>|>)\s*\/dev\/tcp\/[0-9A-Za-z.-]{4,64}\/\d{2,5}\s+0>&1/
        $nc = /\bmkfifo\s+(\/\S{1,40})\s*;\s*(nc|cat)\b.{0,80}\|\s*\/bin\/(ba)?sh\s+-i\s+2>&1\s*\|\s*nc\s/s
        $python = /socket\.socket\(.{0,200}os\.dup2\(\w{1,10}\.fileno\(\),\s*0\).{0,200}\/bin\/(ba)?sh/s
        $ps = /New-Object\s+(System\.)?Net\.Sockets\.TCPClient\(.{0,400}\.GetStream\(\).{0,800}\biex\b/s nocase
    condition:
        any of them and filesize < 256KB
}

rule upx_packed_with_injection_imports : packed
{
    meta:
        description = "Packed program (UPX) that names the calls used to write into other processes"
        description_ja = "圧縮され、他プロセスへの書き込みを行う実行ファイル"
        severity = "medium"
        confidence = "low"
    strings:
        $upx0 = "UPX0"
        $upx1 = "UPX1"
        $i1 = "WriteProcessMemory"
        $i2 = "CreateRemoteThread"
        $i3 = "NtUnmapViewOfSection"
        $i4 = "QueueUserAPC"
        $i5 = "SetThreadContext"
    condition:
        uint16(0) == 0x5A4D and uint32(uint32(0x3C)) == 0x00004550
        and $upx0 in (0..1024) and $upx1 in (0..1024) and 2 of ($i*) and filesize < 20MB
}

rule autoit_dropper : dropper
{
    meta:
        description = "Compiled AutoIt script that hides a program and starts it"
        description_ja = "プログラムを隠して起動する AutoIt 実行ファイル"
        severity = "high"
        confidence = "medium"
    strings:
        $stub = "This is a third-party compiled AutoIt script." wide ascii
        $magic = { A3 48 4B BE 98 6C 4A A9 99 4C 53 0A 86 D6 48 7D }
        $d1 = "RegAsm.exe" ascii wide nocase
        $d2 = "NtUnmapViewOfSection" ascii wide
        $d3 = "@StartupDir" ascii wide nocase
        $d4 = "CallWindowProc" ascii wide
        $d5 = "VirtualAllocEx" ascii wide
    condition:
        uint16(0) == 0x5A4D and ($stub or $magic) and 3 of ($d*) and filesize < 20MB
}
