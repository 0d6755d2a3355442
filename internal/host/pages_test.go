package host

import "testing"

func TestReadOnlyMapping(t *testing.T) {
	const program = "/usr/bin/skiff"
	for line, want := range map[string]bool{
		"00400000-0386d000 r-xp 00000000 fe:00 417 /usr/bin/skiff":          true,
		"0386d000-07703000 r--p 0346d000 fe:00 417 /usr/bin/skiff":          true,
		"07703000-07886000 rw-p 07303000 fe:00 417 /usr/bin/skiff":          false,
		"07886000-095f3000 rw-p 00000000 00:00 0":                           false,
		"7f9c3d600000-7f9e7d600000 r--s 00000000 fe:00 9 /var/lib/skiff/db": false,
		"7fff00000000-7fff00002000 r-xp 00000000 00:00 0 [vdso]":            false,
	} {
		if _, _, ok := readOnlyMapping(line, program); ok != want {
			t.Errorf("%s: %v", line, ok)
		}
	}
	low, high, _ := readOnlyMapping("00400000-0386d000 r-xp 00000000 fe:00 417 /usr/bin/skiff", program)
	if low != 0x400000 || high != 0x386d000 {
		t.Errorf("%x-%x", low, high)
	}
}

// The program goes on: what it needs comes back from the file.
func TestDropProgramPages(t *testing.T) {
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
}
