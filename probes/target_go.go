package probes

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"go/version"
	"io"
	"math"
	"sort"
	"strings"
)

// The functions of crypto/tls that the tap needs; all take the *Conn first.
const (
	goRead   = "crypto/tls.(*Conn).Read"
	goWrite  = "crypto/tls.(*Conn).Write"
	goClose  = "crypto/tls.(*Conn).Close"
	goClient = "crypto/tls.(*Conn).clientHandshake"
	goServer = "crypto/tls.(*Conn).serverHandshake"
)

// function is a function's range of addresses.
type function struct{ start, end uint64 }

// findGo looks for crypto/tls in a Go executable, by its symbol table or, when
// that was stripped, by the table the runtime itself walks stacks with.
func findGo(f *elfFile) (*target, error) {
	if f.Section(".go.buildinfo") == nil && f.Section(".note.go.buildid") == nil {
		return nil, errNoTarget
	}
	info, err := buildinfo.Read(&budget{f, maxBuildInfo})
	if err != nil {
		return nil, errNoTarget
	}
	// "go1.27-devel_…" and "go1.25 X:nodwarf5" compare by their language version.
	lang := version.Lang(strings.TrimPrefix(strings.Fields(info.GoVersion + " ?")[0], "devel "))
	if lang != "" && version.Compare(lang, "go1.18") < 0 {
		return nil, fmt.Errorf("%s passes arguments in another way than Go 1.18 and later", info.GoVersion)
	}
	want := map[string]function{goRead: {}, goWrite: {}, goClose: {}, goClient: {}, goServer: {}}
	if !goSymbols(f, want) {
		if err := goPclntab(f, want); err != nil {
			return nil, err
		}
	}
	if want[goRead].start == 0 || want[goWrite].start == 0 {
		return nil, errNoTarget
	}
	t := &target{}
	for _, h := range []struct {
		program string
		names   []string
		returns string // the program at their returns
	}{
		{"gotls_handshake", []string{goClient, goServer}, ""},
		{"gotls_close", []string{goClose}, ""},
		{"gotls_read", []string{goRead}, "gotls_read_return"},
		{"gotls_write", []string{goWrite}, "gotls_return"},
	} {
		k, returns := hook{program: h.program}, hook{program: h.returns}
		for _, name := range h.names {
			fn := want[name]
			off, ok := fileOffset(f.File, fn.start)
			if fn.start == 0 || !ok {
				continue
			}
			code := make([]byte, fn.end-fn.start)
			if _, err := f.ReadAt(code, int64(off)); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			k.sites = append(k.sites, site{name, off, place(code, goArgs, false)})
			if h.returns == "" {
				continue
			}
			rets, err := findReturns(code)
			if err != nil {
				return nil, fmt.Errorf("disassemble %s: %w", name, err)
			}
			for _, ret := range rets {
				returns.sites = append(returns.sites, site{name: name, start: off + ret})
			}
			if name == goRead && !spills(code, goArgs[:3]) {
				returns.program = "gotls_return"
			}
		}
		for _, k := range []hook{returns, k} { // a call that is seen to begin is seen to end
			if k.sites != nil {
				t.hooks = append(t.hooks, k)
			}
		}
	}
	return t, nil
}

// maxBuildInfo is far above what a build's description takes to find, in bytes.
const maxBuildInfo = 4 << 20

// budget reads from r until it has asked for more than left bytes.
type budget struct {
	r    io.ReaderAt
	left int64
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errors.New("more to read than a build's description has")
	}
	return b.r.ReadAt(p, off)
}

// goSymbols fills want from the symbol table; false when there is none with crypto/tls.
func goSymbols(f *elfFile, want map[string]function) bool {
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	found, err := readSymbols(f, ".symtab", ".strtab", names)
	if err != nil {
		return false
	}
	for name, fn := range found {
		if size := fn.end - fn.start; size > 0 && size < maxGoFunc {
			want[name] = fn
		}
	}
	return want[goRead].start != 0
}

// maxGoFunc is far above the size of any function looked for, in bytes.
const maxGoFunc = 64 << 10

// errPclntab says that the table of functions cannot be read.
var errPclntab = errors.New("stripped Go executable whose function table cannot be read")

// pclntab is the runtime's table of functions, as runtime/symtab.go has laid it
// out since Go 1.18: offsets of 32 bits from the start of the text.
type pclntab struct {
	data  []byte
	order binary.ByteOrder
	nfunc int
	text  uint64 // as the header states it; Go 1.26 and later state nothing
	names []byte
	funcs []byte
}

const (
	pclntabGo118 = 0xfffffff0
	pclntabGo120 = 0xfffffff1
)

func readPclntab(data []byte, order binary.ByteOrder) (*pclntab, error) {
	if len(data) < 8+8*8 {
		return nil, errPclntab
	}
	magic := order.Uint32(data)
	if magic != pclntabGo118 && magic != pclntabGo120 || data[4] != 0 || data[5] != 0 || data[7] != 8 {
		return nil, errPclntab
	}
	word := func(i int) uint64 { return order.Uint64(data[8+8*i:]) }
	names, units, funcs := word(3), word(4), word(7)
	p := &pclntab{data: data, order: order, nfunc: int(word(0)), text: word(2)}
	if p.nfunc <= 0 || names >= uint64(len(data)) || funcs >= uint64(len(data)) ||
		uint64(p.nfunc) > (uint64(len(data))-funcs)/8 {
		return nil, errPclntab
	}
	p.names, p.funcs = data[names:], data[funcs:]
	if units > names && units < uint64(len(data)) {
		p.names = data[names:units]
	}
	return p, nil
}

// entry returns function i's offset in the text and its name's in names.
func (p *pclntab) entry(i int) (text uint32, name uint32, ok bool) {
	if 8*i+8 > len(p.funcs) {
		return 0, 0, false
	}
	text = p.order.Uint32(p.funcs[8*i:])
	at := uint64(p.order.Uint32(p.funcs[8*i+4:]))
	if at+8 > uint64(len(p.funcs)) {
		return 0, 0, false
	}
	return text, p.order.Uint32(p.funcs[at+4:]), true
}

// find returns the ranges of the named functions, relative to the text's start.
func (p *pclntab) find(names map[string]function) map[string]function {
	byOffset := make(map[uint32]string)
	present := 0
	for name := range names {
		before := len(byOffset)
		indexName(p.names, name, func(at uint32) { byOffset[at] = name })
		if len(byOffset) > before {
			present++
		}
	}
	found := make(map[string]function)
	if len(byOffset) == 0 {
		return found
	}
	for i := 0; i < p.nfunc && len(found) < present; i++ {
		start, at, ok := p.entry(i)
		if !ok {
			break
		}
		name, wanted := byOffset[at]
		if !wanted || 8*i+12 > len(p.funcs) {
			continue
		}
		end := p.order.Uint32(p.funcs[8*i+8:])
		if end > start && end-start < maxGoFunc {
			found[name] = function{uint64(start), uint64(end)}
		}
	}
	return found
}

// goPclntab fills want from the runtime's table of functions.
func goPclntab(f *elfFile, want map[string]function) error {
	p, err := loadPclntab(f)
	if err != nil {
		return err
	}
	found := p.find(want)
	if found[goRead].end == 0 || found[goWrite].end == 0 {
		return errNoTarget
	}
	text, err := goTextStart(f, p)
	if err != nil {
		return err
	}
	for name, fn := range found {
		want[name] = function{text + fn.start, text + fn.end}
	}
	return nil
}

func loadPclntab(f *elfFile) (*pclntab, error) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if s := f.Section(name); s != nil && s.Type != elf.SHT_NOBITS {
			data, err := f.data(s)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			return readPclntab(data, f.ByteOrder)
		}
	}
	// An external linker may have put it into a section of another name.
	for _, name := range []string{".data.rel.ro", ".rodata"} {
		s := f.Section(name)
		if s == nil || s.Type == elf.SHT_NOBITS {
			continue
		}
		data, err := f.data(s)
		if err != nil {
			continue
		}
		for at := 0; at+8 <= len(data); at += 8 {
			if p, err := readPclntab(data[at:], f.ByteOrder); err == nil {
				return p, nil
			}
		}
	}
	return nil, errPclntab
}

// Bounds on a Go program's code and on the C code before it, in bytes.
const (
	maxText    = 1 << 30
	maxForeign = 64 << 20
)

// goTextStart finds the address that the table's offsets count from. The header
// states it up to Go 1.25, but for position-independent executables; else it is
// the address at which the table's functions begin as functions do.
func goTextStart(f *elfFile, p *pclntab) (uint64, error) {
	s := f.Section(".text")
	if s == nil || s.ReaderAt == nil || s.Size > maxText || s.Addr > math.MaxInt64 {
		return 0, errPclntab
	}
	sample := p.sample()
	fits := func(code io.ReaderAt, start uint64) bool {
		good := 0
		var b [16]byte
		for _, off := range sample {
			n, _ := code.ReadAt(b[:], int64(start+uint64(off)-s.Addr))
			if isGoPrologue(b[:n]) {
				good++
			}
		}
		// Leaf functions have none, so not all can fit.
		return good > 8 && good > len(sample)*2/5
	}
	candidates := []uint64{p.text, s.Addr}
	// Linked by Go itself, the entry point is one of the table's functions.
	rt0 := map[string]function{"_rt0_amd64_linux": {}, "_rt0_arm64_linux": {}}
	for _, fn := range p.find(rt0) {
		candidates = append(candidates, f.Entry-fn.start)
	}
	for _, start := range candidates {
		if start >= s.Addr && start < s.Addr+s.Size && fits(s, start) {
			return start, nil
		}
	}
	// Behind the C code that an external linker puts first.
	code, err := f.data(s)
	if err != nil {
		return 0, fmt.Errorf("read .text: %w", err)
	}
	for start := s.Addr &^ 15; start < s.Addr+min(s.Size, maxForeign); start += 16 {
		if fits(bytes.NewReader(code), start) {
			return start, nil
		}
	}
	return 0, errPclntab
}

// sample returns the offsets of up to 64 functions spread over the table.
func (p *pclntab) sample() []uint32 {
	var out []uint32
	step := max(1, p.nfunc/64)
	for i := 0; i < p.nfunc; i += step {
		if off, _, ok := p.entry(i); ok {
			out = append(out, off)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}
