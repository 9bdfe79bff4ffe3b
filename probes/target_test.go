package probes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
)

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

// sparse is a file whose end is far behind its bytes.
type sparse struct {
	data []byte
	read int64
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.read += int64(len(p))
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	clear(p)
	if off < int64(len(s.data)) {
		copy(p, s.data[off:])
	}
	return len(p), nil
}

var _ io.ReaderAt = (*sparse)(nil)

// TestHostileELF: any container may bring any file; it neither ends the agent nor
// fills its memory.
func TestHostileELF(t *testing.T) {
	const huge = 1 << 44
	le := binary.LittleEndian
	if _, err := findTarget(bytes.NewReader(goExecutable(t))); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	for name, spoil := range map[string]func(b []byte){
		"section names of 16 TiB": func(b []byte) {
			at := le.Uint64(b[40:]) + 64*uint64(le.Uint16(b[62:]))
			le.PutUint64(b[at+32:], huge)
		},
		"function table of 16 TiB": func(b []byte) { le.PutUint64(section(t, b, ".gopclntab")[32:], huge) },
		"code of 16 TiB":           func(b []byte) { le.PutUint64(section(t, b, ".text")[32:], huge) },
		"code at the end of the address space": func(b []byte) {
			le.PutUint64(section(t, b, ".text")[16:], ^uint64(0)-le.Uint64(section(t, b, ".text")[32:]))
		},
		"build information of 16 TiB": func(b []byte) { le.PutUint64(section(t, b, ".go.buildinfo")[32:], huge) },
		"compressed code": func(b []byte) {
			h := section(t, b, ".text")
			le.PutUint64(h[8:], le.Uint64(h[8:])|0x800)
			le.PutUint32(b[le.Uint64(h[24:]):], 1) // ELFCOMPRESS_ZLIB
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := goExecutable(t)
			if h := section(t, b, ".symtab"); h != nil { // without symbols the function table is read
				le.PutUint32(h[4:], uint32(elf.SHT_NOBITS))
			}
			spoil(b)
			s := &sparse{data: b}
			target, err := findTarget(s)
			t.Logf("%v, %v; %d bytes read", target != nil, err, s.read)
			if s.read > 1<<30 {
				t.Errorf("%d bytes were read", s.read)
			}
		})
	}
}
