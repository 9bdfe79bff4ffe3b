package probes

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/tollwire/tollwire/flow"
)

// hook is one program of a tap and the functions of the file that it belongs to.
type hook struct {
	program string
	ret     bool   // at their return
	tell    uint32 // to the program, in its cookie's upper half, where the kernel has cookies
	sites   []site
}

// site is one of a hook's functions.
type site struct {
	name  string // for people
	start uint64 // in the file
	placing
}

// target is what a file offers to the taps.
type target struct {
	source flow.Source
	// ciphertext: the functions do not know their connection; ciphertext leads to it.
	ciphertext bool
	hooks      []hook
}

// errNoTarget says that a file holds nothing to tap.
var errNoTarget = errors.New("no TLS functions")

// errUnread says that a part of a file could not be read: what is there may be other than
// what was found.
var errUnread = errors.New("cannot be read")

// reads remembers why a file could not be read.
type reads struct {
	io.ReaderAt
	err error
}

func (r *reads) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF && r.err == nil {
		r.err = err
	}
	return n, err
}

// findTarget looks into an ELF file for functions that a tap knows. It returns
// errNoTarget when the file is none of a tap's business, and another error when it
// is but cannot be tapped, errUnread where that is for want of reading it. Any container
// may bring any file: what it panics on is an error.
func findTarget(file io.ReaderAt) (t *target, err error) {
	r := &reads{ReaderAt: file}
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("read ELF file: %v", p)
		}
		if err != nil && r.err != nil {
			err = fmt.Errorf("%w: %w", errUnread, r.err)
		}
	}()
	f, err := openELF(r)
	if err != nil {
		return nil, err
	}
	for _, tap := range tlsTaps {
		if tap.find == nil {
			continue
		}
		if t, err = tap.find(f); !errors.Is(err, errNoTarget) {
			if t != nil {
				t.source = tap.source
			}
			return t, err
		}
	}
	return nil, errNoTarget
}

// symbolHook is one program of a tap and the functions that it belongs to, by their names.
type symbolHook struct {
	symbols []string
	program string
	ret     bool
	args    int // argument registers that the program reads
}

// findByName returns where a file has the functions of hooks; errNoTarget when it does
// not define those that are needed.
func findByName(f *elfFile, hooks []symbolHook, needed ...string) (*target, error) {
	args := make(map[string]int)
	returns := make(map[string]bool)
	for _, h := range hooks {
		for _, s := range h.symbols {
			args[s] = max(args[s], h.args)
			returns[s] = returns[s] || h.ret
		}
	}
	found, err := findSymbols(f, slices.Collect(maps.Keys(args)))
	if err != nil {
		return nil, err
	}
	for _, name := range needed {
		if found[name].start == 0 {
			return nil, errNoTarget
		}
	}
	sites := make(map[string]site)
	for name, fn := range found {
		code := make([]byte, min(fn.end-fn.start, maxPlaced+1))
		if _, err := f.ReadAt(code, int64(fn.start)); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		sites[name] = site{name, fn.start, place(code, cArgs[:args[name]], returns[name])}
	}
	t := &target{}
	for _, h := range hooks {
		k := hook{program: h.program, ret: h.ret}
		for _, name := range h.symbols {
			if s, ok := sites[name]; ok {
				k.sites = append(k.sites, s)
			}
		}
		if k.sites != nil {
			t.hooks = append(t.hooks, k)
		}
	}
	return t, nil
}

// What OpenSSL's tap needs, and what it takes when it is there.
var opensslHooks = []symbolHook{
	{[]string{"SSL_read"}, "openssl_read", false, 3},
	{[]string{"SSL_write"}, "openssl_write", false, 3},
	{[]string{"SSL_read_ex"}, "openssl_read_ex", false, 4},
	{[]string{"SSL_write_ex"}, "openssl_write_ex", false, 4},
	{[]string{"SSL_free"}, "openssl_free", false, 1},
	{[]string{"SSL_clear"}, "openssl_clear", false, 1},
	{[]string{"SSL_sendfile"}, "openssl_sendfile", false, 1},
	{[]string{"SSL_new"}, "openssl_new", true, 0},
	{[]string{"SSL_sendfile"}, "openssl_sendfile_return", true, 0},
	{[]string{"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"}, "openssl_return", true, 0},
}

func findOpenSSL(f *elfFile) (*target, error) {
	t, err := findByName(f, opensslHooks, "SSL_read", "SSL_write")
	if err != nil {
		return nil, err
	}
	// What the tap would rather know, and does without when it cannot be told for sure.
	known, err := findSymbols(f, []string{"SSL_get_shutdown", "SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex"})
	if err != nil {
		return nil, err
	}
	fn := known["SSL_get_shutdown"]
	code := make([]byte, min(fn.end-fn.start, 128))
	n, _ := f.ReadAt(code, int64(fn.start))
	offset, ok := returnedField(code[:n])
	if !ok {
		return t, nil
	}
	for i := range t.hooks {
		if t.hooks[i].program == "openssl_return" {
			t.hooks[i].tell = uint32(offset) + 1
		}
	}
	// The end of what is read is then told for both of these, and not by the result.
	t.shareBody(f, known, "SSL_read", "SSL_read_ex", "openssl_read", "openssl_read_ex")
	t.shareBody(f, known, "SSL_write", "SSL_write_ex", "openssl_write", "openssl_write_ex")
	return t, nil
}

// shareBody puts the probes of two functions on the one function behind both, if there
// is one that begins with an instruction which is emulated.
func (t *target) shareBody(r io.ReaderAt, known map[string]function, plainName, exName, plainProgram, exProgram string) {
	read := func(start, end uint64) door {
		code := make([]byte, min(end-start, maxPlaced))
		n, _ := r.ReadAt(code, int64(start))
		return door{start, code[:n]}
	}
	plainFn, exFn := known[plainName], known[exName]
	if plainFn.start == 0 || exFn.start == 0 {
		return
	}
	start, ok := behind(read(plainFn.start, plainFn.end), read(exFn.start, exFn.end))
	if !ok {
		return
	}
	if body := read(start, start+16); len(body.code) < 16 || !emulated(body.code) {
		return
	}
	body := site{name: plainName + ", " + exName, start: start, placing: plain}
	for i := range t.hooks {
		h := &t.hooks[i]
		h.sites = slices.DeleteFunc(h.sites, func(s site) bool { return s.name == plainName || s.name == exName })
		if h.program == exProgram || h.program == "openssl_return" {
			h.sites = append(h.sites, body)
		}
	}
	t.hooks = slices.DeleteFunc(t.hooks, func(h hook) bool { return h.program == plainProgram && len(h.sites) == 0 })
}

// findSymbols returns the ranges in the file of the named functions that it defines. What
// a program exports may be a part of what it has linked in: what its libraries refer to.
func findSymbols(f *elfFile, names []string) (map[string]function, error) {
	ranges := make(map[string]function)
	for _, t := range [][2]string{{".dynsym", ".dynstr"}, {".symtab", ".strtab"}} {
		found, err := readSymbols(f, t[0], t[1], names)
		if err != nil {
			return nil, err
		}
		for name, fn := range found {
			if _, exported := ranges[name]; exported {
				continue
			}
			if off, ok := fileOffset(f.File, fn.start); ok {
				ranges[name] = function{off, off + fn.end - fn.start}
			}
		}
		if len(ranges) == len(names) {
			break
		}
	}
	return ranges, nil
}

// readSymbols returns the addresses of the named functions that a symbol table
// defines. It looks for their names and then through the table as it stands: a
// program has tens of thousands of symbols, and its first request may be
// milliseconds away.
func readSymbols(f *elfFile, table, strings string, names []string) (map[string]function, error) {
	tab, str := f.Section(table), f.Section(strings)
	if tab == nil || str == nil || tab.Type == elf.SHT_NOBITS || str.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	byName := make(map[uint32]string)
	err := f.pieces(str, func(at uint64, b []byte) {
		for _, name := range names {
			if len(byName) < maxPlaces {
				indexName(b, name, func(i uint32) { byName[uint32(at)+i] = name })
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", strings, err)
	}
	if len(byName) == 0 {
		return nil, nil
	}
	found := make(map[string]function)
	err = f.pieces(tab, func(_ uint64, symbols []byte) {
		for ; len(symbols) >= elf.Sym64Size; symbols = symbols[elf.Sym64Size:] {
			name, ok := byName[f.ByteOrder.Uint32(symbols)]
			if !ok || elf.ST_TYPE(symbols[4]) != elf.STT_FUNC || f.ByteOrder.Uint16(symbols[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			start := f.ByteOrder.Uint64(symbols[8:])
			found[name] = function{start, start + f.ByteOrder.Uint64(symbols[16:])}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return found, nil
}

// maxPlaces bounds the places at which a name is taken for an entry's.
const maxPlaces = 1024

// indexName calls f with every place in a table of NUL-ended names where the name
// ends an entry. A linker lets a name share the end of a longer one, so what stands
// before it says nothing.
func indexName(table []byte, name string, f func(at uint32)) {
	needle := append([]byte(name), 0)
	at := 0
	for range maxPlaces {
		i := bytes.Index(table[at:], needle)
		if i < 0 {
			return
		}
		at += i
		f(uint32(at))
		at++
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
