package probes

import (
	"bytes"
	"os"
	"testing"
)

// FuzzTarget: any container may bring any file.
func FuzzTarget(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	if b, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(b[:min(len(b), 64<<10)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if target, err := findTarget(bytes.NewReader(b)); err == nil && len(target.hooks) == 0 {
			t.Error("a target without hooks")
		}
	})
}

func FuzzMapping(f *testing.F) {
	f.Add("7f5b7e33c000-7f5b7e33e000 r-xp 00001000 fe:00 326786                     /usr/lib/libssl.so.3")
	f.Add("400000-6ab000 r-xp 00000000 fe:00 99 /tmp/a b (deleted)")
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]")
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMapping(line); ok && (m.seen.ino == 0 || m.path == "") {
			t.Errorf("%q is %+v", line, m)
		}
	})
}

func FuzzMmap2(f *testing.F) {
	f.Add(make([]byte, 72))
	f.Add(append(make([]byte, 72), "/bin/true\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseMmap2(b); ok && (m.seen.ino == 0 || m.path[0] != '/') {
			t.Errorf("%x is %+v", b, m)
		}
	})
}
