// Office documents, links and scripts that fetch and start a program.

rule office_macro_downloader : document
{
    meta:
        description = "Office macro that starts by itself, fetches something and runs it"
        description_ja = "自動実行マクロがファイルを取得して実行する文書"
        severity = "high"
        confidence = "high"
    strings:
        $auto1 = "AutoOpen" nocase
        $auto2 = "Document_Open" nocase
        $auto3 = "Workbook_Open" nocase
        $auto4 = "Auto_Open" nocase
        $get1 = "URLDownloadToFile" nocase
        $get2 = "MSXML2.XMLHTTP" nocase
        $get3 = "WinHttp.WinHttpRequest" nocase
        $get4 = "ADODB.Stream" nocase
        $run1 = "WScript.Shell" nocase
        $run2 = "ShellExecute" nocase
        $run3 = "Shell(" nocase
        $vba1 = "Attribute VB_Name" nocase
        $vba2 = { 41 74 74 72 69 62 75 74 00 65 20 56 42 5F 4E 61 6D }
        $vba3 = "End Sub" nocase
    condition:
        any of ($auto*) and any of ($get*) and any of ($run*) and any of ($vba*) and filesize < 20MB
}

rule lnk_starts_script_host : shortcut
{
    meta:
        description = "Windows shortcut that starts PowerShell, mshta or a script host with arguments"
        description_ja = "スクリプトを起動する不審なショートカット"
        severity = "high"
        confidence = "high"
    strings:
        $host1 = "powershell" ascii wide nocase
        $host2 = "mshta" ascii wide nocase
        $host3 = "wscript" ascii wide nocase
        $host4 = "rundll32" ascii wide nocase
        $arg1 = "http://" ascii wide nocase
        $arg2 = "https://" ascii wide nocase
        $arg3 = " -enc" ascii wide nocase
        $arg4 = "frombase64string" ascii wide nocase
    condition:
        uint32(0) == 0x0000004C and uint32(4) == 0x00021401 and filesize < 4MB and any of ($host*) and any of ($arg*)
}

rule hta_dropper : script
{
    meta:
        description = "HTML application that writes or fetches a program and starts it"
        description_ja = "プログラムを取得して起動する HTA"
        severity = "high"
        confidence = "high"
    strings:
        $hta = "<hta:application" nocase
        $vb = "<script language=\"vbscript\"" nocase
        $shell = "WScript.Shell" nocase
        $do1 = "powershell" nocase
        $do2 = "ADODB.Stream" nocase
        $do3 = "MSXML2.XMLHTTP" nocase
        $do4 = "bitsadmin" nocase
        $do5 = "certutil" nocase
    condition:
        ($hta or $vb) and $shell and any of ($do*) and filesize < 4MB
}

rule js_dropper : script
{
    meta:
        description = "Windows script that fetches a program with ActiveX, stores it and starts it"
        description_ja = "プログラムを取得・保存・起動する JScript"
        severity = "high"
        confidence = "high"
    strings:
        $ax = "ActiveXObject" nocase
        $http = /MSXML2\.(Server)?XMLHTTP|WinHttp\.WinHttpRequest/ nocase
        $stream = "ADODB.Stream" nocase
        $save = "SaveToFile" nocase
        $shell1 = "WScript.Shell" nocase
        $shell2 = "Shell.Application" nocase
    condition:
        $ax and $http and $stream and $save and any of ($shell*) and filesize < 4MB
}

rule html_smuggling : phishing
{
    meta:
        description = "Web page that assembles a program or disk image in the browser and saves it by itself"
        description_ja = "ブラウザ内でプログラムを組み立てて保存させる HTML"
        severity = "high"
        confidence = "medium"
    strings:
        $html = "<html" nocase
        $blob1 = "new Blob(" nocase
        $blob2 = "msSaveOrOpenBlob" nocase
        $url = "createObjectURL" nocase
        $decode1 = "atob(" nocase
        $decode2 = "charCodeAt" nocase
        $name = /download\s{0,4}(=|'\s*,|"\s*,)\s{0,4}['"][^'"]{1,80}\.(iso|img|vhd|exe|js|hta|lnk|scr|zip)['"]/ nocase
        $click = ".click()" nocase
        $payload = /['"](TVqQ|TVpQ|TVoA|UEsDB|Q0QwMD|N3q8)[A-Za-z0-9+\/]{64}/
    condition:
        $html and ($blob2 or ($blob1 and $url)) and any of ($decode*) and $name and $click and $payload and filesize < 40MB
}

rule zip_double_extension : archive
{
    meta:
        description = "ZIP archive with a program that pretends to be a document (invoice.pdf.exe)"
        description_ja = "文書を装う実行ファイル(二重拡張子)を含む ZIP"
        severity = "high"
        confidence = "high"
    strings:
        $name = /PK\x03\x04.{26}[^\x00-\x1f]{1,120}\.(pdf|docx?|xlsx?|pptx?|jpe?g|png|txt|csv)[ _]{0,40}\.(exe|scr|com|pif|js|jse|vbs|vbe|hta|lnk|bat|cmd)/ nocase
    condition:
        uint32be(0) == 0x504B0304 and $name
}
