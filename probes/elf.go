package probes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// elfFile is an ELF file of this machine that anybody may have made, and may be writing
// to. debug/elf takes what such a file says of itself for true, so it is handed heads
// that are as small as a program's, and those stay as they were.
type elfFile struct {
	*elf.File
	file   io.ReaderAt
	heads  []part
	unread int64  // bytes that may still be read
	unheld uint64 // bytes that sections may still be read into
	buf    []byte // of pieces
}

// part is what a file holds at some place.
type part struct {
	at int64
	b  []byte
}

// What a file may cost, in bytes. The largest programs that were looked at have 10 KB of
// section names in 400 sections; kube-apiserver's table of functions is 38 MiB, and is
// the largest thing that is held as a whole.
const (
	maxHeads = 4 << 20   // the tables of sections and of segments
	maxNames = 16 << 20  // what the names of all sections may come to
	maxHeld  = 96 << 20  // sections that are read whole, together
	maxRead  = 256 << 20 // everything that is read
)

// openELF opens an ELF file; errNoTarget when it is none of this machine's. What
// debug/elf panics on is an error.
func openELF(file io.ReaderAt) (f *elfFile, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("read ELF file: %v", p)
		}
	}()
	f = &elfFile{file: file, unread: maxRead, unheld: maxHeld}
	if !f.readHeads() {
		return nil, errNoTarget
	}
	if f.File, err = elf.NewFile(f); err != nil { // a script, a core, another machine's format
		return nil, errNoTarget
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != machine {
		return nil, errNoTarget
	}
	return f, nil
}

// readHeads reads what says how large the rest is. It reports whether the file is a
// 64-bit little-endian ELF file with heads as small as a program's.
func (f *elfFile) readHeads() bool {
	h := make([]byte, 64)
	if _, err := f.ReadAt(h, 0); err != nil || !bytes.HasPrefix(h, []byte("\x7fELF\x02\x01")) {
		return false
	}
	f.heads = []part{{0, h}}
	le := binary.LittleEndian
	segmentSize, segments := uint64(le.Uint16(h[54:])), uint64(le.Uint16(h[56:]))
	at, size, count, names := le.Uint64(h[40:]), le.Uint16(h[58:]), le.Uint16(h[60:]), le.Uint16(h[62:])
	if segmentSize*segments > maxHeads {
		return false
	}
	if at == 0 { // no sections
		return count == 0
	}
	if size != 64 || names >= count || int64(at) < 0 {
		return false
	}
	sections := make([]byte, int(count)*64)
	if _, err := f.ReadAt(sections, int64(at)); err != nil {
		return false
	}
	f.heads = append(f.heads, part{int64(at), sections})
	// debug/elf reads the table of names whole, and copies each section's out of it.
	s := sections[int(names)*64:]
	length := le.Uint64(s[32:])
	return le.Uint64(s[8:])&uint64(elf.SHF_COMPRESSED) == 0 && length <= maxNames/uint64(count)
}

var errTooMuch = errors.New("more to read than a program has")

// ReadAt reads the file, whose heads stay as they were.
func (f *elfFile) ReadAt(p []byte, off int64) (int, error) {
	if f.unread -= int64(len(p)); f.unread < 0 {
		return 0, errTooMuch
	}
	n, err := f.file.ReadAt(p, off)
	for _, h := range f.heads {
		if from, to := max(off, h.at), min(off+int64(n), h.at+int64(len(h.b))); from < to {
			copy(p[from-off:to-off], h.b[from-h.at:])
		}
	}
	return n, err
}

// data reads a section whole; its size is the file's claim, and one that is compressed
// claims what it likes.
func (f *elfFile) data(s *elf.Section) ([]byte, error) {
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, fmt.Errorf("%s is compressed", s.Name)
	}
	if s.Size > f.unheld {
		return nil, fmt.Errorf("%s of %d bytes: want at most %d", s.Name, s.Size, f.unheld)
	}
	if s.Size == 0 {
		return nil, nil
	}
	if _, err := s.ReadAt(make([]byte, 1), int64(s.Size)-1); err != nil { // before room is made
		return nil, err
	}
	f.unheld -= s.Size
	b := make([]byte, s.Size)
	_, err := s.ReadAt(b, 0)
	return b, err
}

// Of pieces: how far one is from the next, which symbols fill, and how much of the next
// it holds, in bytes.
const (
	pieceStep    = elf.Sym64Size << 12
	pieceOverlap = 128 // longer than any name that is looked for
)

// pieces calls each with the pieces of a section, in order, and where they stand in it.
func (f *elfFile) pieces(s *elf.Section, each func(at uint64, b []byte)) error {
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return fmt.Errorf("%s is compressed", s.Name)
	}
	if s.Size > maxRead {
		return fmt.Errorf("%s of %d bytes: want at most %d", s.Name, s.Size, int64(maxRead))
	}
	if f.buf == nil {
		f.buf = make([]byte, pieceStep+pieceOverlap)
	}
	for at := uint64(0); at < s.Size; at += pieceStep {
		b := f.buf[:min(uint64(len(f.buf)), s.Size-at)]
		if _, err := s.ReadAt(b, int64(at)); err != nil {
			return err
		}
		each(at, b)
	}
	return nil
}
