// In every set, whoever wrote it: proves on the box itself that scanning finds what it must.

rule sekisho_eicar : test
{
    meta:
        description = "EICAR anti-malware test string, anywhere in the file"
        description_ja = "EICAR テスト文字列(無害な検査用ファイル)"
        severity = "high"
        confidence = "certain"
    strings:
        $head = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24 45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        $head
}

rule sekisho_eicar_file : test
{
    meta:
        description = "EICAR anti-malware test file in its strict form: the string begins the file, which ends within 128 bytes"
        description_ja = "EICAR テストファイル(厳密な形式)"
        severity = "high"
        confidence = "certain"
    condition:
        filesize >= 68 and filesize <= 128 and sekisho_eicar and uint32be(0) == 0x58354F21
}
