package probes

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tollwire/tollwire/flow"
)

// hook is one program of a tap and where in the file it belongs.
type hook struct {
	program string
	ret     bool // at the return of the functions that begin there
	offsets []uint64
	names   []string // of the functions, for people
}

// target is what a file offers to the taps.
type target struct {
	source flow.Source
	hooks  []hook
}

// errNoTarget says that a file holds nothing to tap.
var errNoTarget = errors.New("no TLS functions")

// findTarget looks into an ELF file for functions that a tap knows. It returns
// errNoTarget when the file is none of a tap's business, and another error when it
// is but cannot be tapped.
func findTarget(r io.ReaderAt) (*target, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, errNoTarget // a script, a core, another machine's format
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != machine {
		return nil, errNoTarget
	}
	if f.Section(".go.buildinfo") != nil || f.Section(".note.go.buildid") != nil {
		t, err := findGo(f, r)
		if !errors.Is(err, errNoTarget) {
			return t, err
		}
	}
	return findOpenSSL(f)
}

// What OpenSSL's tap needs, and what it takes when it is there. Entries come
// before returns, so that no return is seen without its entry.
var opensslHooks = []struct {
	symbols []string
	program string
	ret     bool
}{
	{[]string{"SSL_read"}, "openssl_read", false},
	{[]string{"SSL_write"}, "openssl_write", false},
	{[]string{"SSL_read_ex"}, "openssl_read_ex", false},
	{[]string{"SSL_write_ex"}, "openssl_write_ex", false},
	{[]string{"SSL_free"}, "openssl_free", false},
	{[]string{"SSL_clear"}, "openssl_clear", false},
	{[]string{"SSL_new"}, "openssl_new", true},
	{[]string{"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"}, "openssl_return", true},
}

func findOpenSSL(f *elf.File) (*target, error) {
	want := make(map[string]uint64)
	for _, h := range opensslHooks {
		for _, s := range h.symbols {
			want[s] = 0
		}
	}
	if err := findSymbols(f, "SSL_write", want); err != nil {
		return nil, err
	}
	if want["SSL_read"] == 0 || want["SSL_write"] == 0 {
		return nil, errNoTarget
	}
	t := &target{source: flow.SourceOpenSSL}
	for _, h := range opensslHooks {
		k := hook{program: h.program, ret: h.ret}
		for _, s := range h.symbols {
			if off := want[s]; off != 0 {
				k.offsets = append(k.offsets, off)
				k.names = append(k.names, s)
			}
		}
		if k.offsets != nil {
			t.hooks = append(t.hooks, k)
		}
	}
	return t, nil
}

// findSymbols sets the file offsets of the functions in want that the file
// defines. Symbol tables are parsed only when their names contain key.
func findSymbols(f *elf.File, key string, want map[string]uint64) error {
	tables := []struct {
		strings string
		read    func() ([]elf.Symbol, error)
	}{{".dynstr", f.DynamicSymbols}, {".strtab", f.Symbols}}
	for _, table := range tables {
		s := f.Section(table.strings)
		if s == nil || s.Type == elf.SHT_NOBITS {
			continue
		}
		found, err := contains(s.Open(), "\x00"+key+"\x00")
		if err != nil {
			return fmt.Errorf("read %s: %w", table.strings, err)
		}
		if !found {
			continue
		}
		symbols, err := table.read()
		if err != nil {
			return fmt.Errorf("read symbols: %w", err)
		}
		for _, sym := range symbols {
			off, wanted := want[sym.Name]
			if !wanted || off != 0 || sym.Section == elf.SHN_UNDEF || elf.ST_TYPE(sym.Info) != elf.STT_FUNC {
				continue
			}
			if off, ok := fileOffset(f, sym.Value); ok {
				want[sym.Name] = off
			}
		}
	}
	return nil
}

// contains reports whether r holds the text, reading it piece by piece.
func contains(r io.Reader, text string) (bool, error) {
	buf := make([]byte, 0, 256<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf, []byte(text)) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if len(buf) >= cap(buf)/2 {
			keep := copy(buf, buf[len(buf)-len(text)+1:])
			buf = buf[:keep]
		}
	}
}

// fileOffset turns an address of an executable segment into an offset in the file.
func fileOffset(f *elf.File, addr uint64) (uint64, bool) {
	i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool {
		return p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz
	})
	if i < 0 {
		return 0, false
	}
	return addr - f.Progs[i].Vaddr + f.Progs[i].Off, true
}
