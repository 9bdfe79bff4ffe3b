package probes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/probes/signature"
)

// targetIn opens a file until the test has ended, and finds what is to be tapped in it.
func targetIn(t testing.TB, path string) (*os.File, *target) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	target, err := findTarget(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return f, target
}

// linked makes a C program with what args name linked in.
func linked(t *testing.T, source string, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "linked")
	cmd := exec.Command("gcc", append([]string{"-o", bin, "-xc", "-", "-xnone"}, args...)...)
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc, with libssl-dev: %v\n%s", err, out)
	}
	return bin
}

// TestPartlyExported: a program with OpenSSL linked in exports of it what one of its
// libraries refers to; the rest is in its symbol table alone.
func TestPartlyExported(t *testing.T) {
	lib := linked(t, "void SSL_free(void *); void drop(void *s) { SSL_free(s); }", "-shared", "-fPIC")
	bin := linked(t, `#include <openssl/ssl.h>
void drop(void *);
int main(void) { SSL *s = 0; SSL_read(s, 0, 0); SSL_write(s, 0, 0); drop(s); }`, lib, "-l:libssl.a", "-l:libcrypto.a")
	f, target := targetIn(t, bin)
	if target.source != flow.SourceOpenSSL {
		t.Fatalf("%+v", target)
	}
	e, err := openELF(f)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"SSL_free", "SSL_read", "SSL_write"}
	if exported, err := readSymbols(e, ".dynsym", ".dynstr", names); err != nil || len(exported) != 1 {
		t.Fatalf("exported: %v, %v; want SSL_free alone", exported, err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(target.hooks, func(h hook) bool {
			return slices.ContainsFunc(h.sites, func(s site) bool { return strings.Contains(s.name, name) })
		}) {
			t.Errorf("no probe on %s", name)
		}
	}
}

// goExecutable is this test itself, an ordinary Go executable with crypto/tls.
func goExecutable(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// section returns the header of a section in an ELF file of 64 bits; nil when there is none.
func section(t *testing.T, b []byte, name string) []byte {
	t.Helper()
	le := binary.LittleEndian
	header := func(i uint16) []byte { return b[le.Uint64(b[40:])+64*uint64(i):][:64] }
	names := b[le.Uint64(header(le.Uint16(b[62:]))[24:]):]
	for i := range le.Uint16(b[60:]) {
		h := header(i)
		if bytes.HasPrefix(names[le.Uint32(h):], append([]byte(name), 0)) {
			return h
		}
	}
	return nil
}

// TestHostileELF: any container may bring any file; on no part of the way that a mapped
// file takes does it end the agent or fill its memory. The files are sparse: what they
// claim to have is there.
func TestHostileELF(t *testing.T) {
	const (
		size   = 1 << 36 // of each file
		huge   = 400 << 20
		usual  = 24 << 20 // what a program of this size may take
		refuse = 256 << 10
	)
	le := binary.LittleEndian
	names := func(b []byte) []byte { return b[le.Uint64(b[40:])+64*uint64(le.Uint16(b[62:])):] }
	// Which a Go program has is its linker's choice; of one that is stripped nothing is spoilt.
	symbols := func(b []byte) (table, names []byte) {
		if h := section(t, b, ".dynsym"); h != nil {
			return h, section(t, b, ".dynstr")
		}
		h := section(t, b, ".symtab")
		if h == nil {
			return make([]byte, 64), make([]byte, 64)
		}
		le.PutUint32(h[4:], uint32(elf.SHT_SYMTAB))
		return h, section(t, b, ".strtab")
	}
	for name, c := range map[string]struct {
		foreign bool // not known as a Go program
		spoil   func(b []byte) []byte
		most    uint64 // bytes that are allocated
	}{
		"a Go program": {false, func(b []byte) []byte { return b }, usual},
		"a program":    {true, func(b []byte) []byte { return b }, usual},
		"section names of 400 MiB": {true, func(b []byte) []byte {
			le.PutUint64(names(b)[32:], huge)
			return b
		}, 3 << 20},
		"many sections with long names": {true, func(b []byte) []byte {
			const count, long = 2000, 1 << 20
			at := uint64(len(b)+63) &^ 63
			all := bytes.Repeat(append(make([]byte, 4), 1, 0, 0, 0), count*64/8)
			clear(all)
			le.PutUint32(all[4:], uint32(elf.SHT_STRTAB))
			le.PutUint64(all[24:], at+uint64(len(all)))
			le.PutUint64(all[32:], long+1)
			b = append(append(b, make([]byte, at-uint64(len(b)))...), all...)
			b = append(b, bytes.Repeat([]byte{'x'}, long)...)
			le.PutUint64(b[40:], at)
			le.PutUint16(b[60:], count)
			le.PutUint16(b[62:], 0)
			return b
		}, 3 << 20},
		"a table of segments of 400 MiB": {true, func(b []byte) []byte {
			le.PutUint16(b[54:], 20<<10)
			le.PutUint16(b[56:], 20<<10)
			return b
		}, 3 << 20},
		"symbol names of 400 MiB": {true, func(b []byte) []byte {
			_, names := symbols(b)
			le.PutUint64(names[32:], huge)
			return b
		}, usual},
		"symbols of 400 MiB": {true, func(b []byte) []byte {
			table, _ := symbols(b)
			le.PutUint64(table[32:], huge)
			return b
		}, usual},
		"function table of 400 MiB": {false, func(b []byte) []byte {
			le.PutUint64(section(t, b, ".gopclntab")[32:], huge)
			return b
		}, refuse},
		"code of 400 MiB": {false, func(b []byte) []byte {
			le.PutUint64(section(t, b, ".text")[32:], huge)
			return b
		}, usual},
		"code at the end of the address space": {false, func(b []byte) []byte {
			le.PutUint64(section(t, b, ".text")[16:], ^uint64(0)-le.Uint64(section(t, b, ".text")[32:]))
			return b
		}, usual},
		"build information of 400 MiB": {false, func(b []byte) []byte {
			le.PutUint64(section(t, b, ".go.buildinfo")[32:], huge)
			return b
		}, usual},
		"compressed code": {false, func(b []byte) []byte {
			h := section(t, b, ".text")
			le.PutUint64(h[8:], le.Uint64(h[8:])|0x800)
			le.PutUint32(b[le.Uint64(h[24:]):], 1) // ELFCOMPRESS_ZLIB
			return b
		}, usual},
		"a segment of 64 GiB": {true, func(b []byte) []byte {
			for i := range le.Uint16(b[56:]) {
				p := b[le.Uint64(b[32:])+56*uint64(i):]
				if elf.ProgType(le.Uint32(p)) == elf.PT_LOAD {
					le.PutUint64(p[32:], size)
				}
			}
			return b
		}, usual},
	} {
		t.Run(name, func(t *testing.T) {
			b := goExecutable(t)
			if h := section(t, b, ".symtab"); h != nil { // without symbols the function table is read
				le.PutUint32(h[4:], uint32(elf.SHT_NOBITS))
			}
			b = c.spoil(b)
			if c.foreign {
				b = bytes.ReplaceAll(b, []byte(".go.buildinfo\x00"), []byte(".no.buildinfo\x00"))
				b = bytes.ReplaceAll(b, []byte(".note.go.buildid\x00"), []byte(".note.no.buildid\x00"))
			}
			taps, err := newTaps(Config{Proc: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}), error(nil)
			if taps.signatures, err = signature.Published(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(taps.cfg.Proc, "42", "root", "program")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			f := newFinder(taps)
			f.ctx = t.Context()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f.look(mapping{pid: 42, seen: inode{1, 2}, path: "/program"})
			select {
			case s := <-f.suspect:
				f.examine(s)
				s.file.Close()
			default:
			}
			runtime.ReadMemStats(&after)
			taken := after.TotalAlloc - before.TotalAlloc
			t.Logf("%.1f MiB: %+v", float64(taken)/(1<<20), f.unseen[42])
			if taken > c.most {
				t.Errorf("%.1f MiB were taken, want at most %d", float64(taken)/(1<<20), c.most>>20)
			}
		})
	}
}

// holed is a file of which some bytes cannot be read.
type holed struct {
	*bytes.Reader
	from, to int64
}

func (h holed) ReadAt(p []byte, off int64) (int, error) {
	if off < h.to && off+int64(len(p)) > h.from {
		return 0, unix.EIO
	}
	return h.Reader.ReadAt(p, off)
}

// TestHoledELF: what cannot be read is no proof that nothing is there.
func TestHoledELF(t *testing.T) {
	bin := linked(t, `#include <openssl/ssl.h>
int main(void) { SSL *s = 0; return SSL_read(s, 0, 0) + SSL_write(s, 0, 0); }`, "-l:libssl.a", "-l:libcrypto.a")
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := findTarget(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	const hole = 256 << 10
	unread := 0
	for at := int64(0); at < int64(len(b)); at += hole {
		target, err := findTarget(holed{bytes.NewReader(b), at, at + hole})
		switch {
		case errors.Is(err, errUnread):
			unread++
		case err != nil:
			t.Errorf("without the bytes from %d on: %v", at, err)
		case len(target.hooks) != len(whole.hooks):
			t.Errorf("without the bytes from %d on: %d hooks of %d", at, len(target.hooks), len(whole.hooks))
		}
	}
	if unread == 0 {
		t.Error("every hole was overlooked")
	}
}
