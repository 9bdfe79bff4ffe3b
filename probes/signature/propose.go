package signature

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Code returns the ranges of an ELF file that are mapped for execution.
func Code(f *elf.File) (all []Segment) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			all = append(all, Segment{Offset: p.Off, Size: p.Filesz})
		}
	}
	return all
}

// Part is a range of bytes relative to a function's start.
type Part struct{ From, Length int }

// Propose fills in a signature's code from the file at path, in which the function
// begins at offset: the bytes of the parts, in order and without overlap, with the
// addresses that the linker filled in left open; between the parts all is open. For
// Multiply it finds the RET instructions too. What is proposed must match exactly once
// in the file. For amd64 it runs objdump.
func (s *Signature) Propose(path string, offset uint64, parts []Part) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("open binary: %w", err)
	}
	defer f.Close()
	if len(parts) == 0 {
		return errors.New("no part to take")
	}
	r := readerAt{f}
	begin := parts[0].From
	last := parts[len(parts)-1]
	code, mask := make([]byte, last.From+last.Length-begin), make([]byte, last.From+last.Length-begin)
	for _, p := range parts {
		at := p.From - begin
		b := code[at : at+p.Length]
		if err := r.read(b, offset+uint64(int64(p.From))); err != nil {
			return err
		}
		open, rets, err := linked(path, f.Machine, offset+uint64(int64(p.From)), b)
		if err != nil {
			return err
		}
		for i := range b {
			if mask[at+i] = 0xff; open[i] {
				mask[at+i], b[i] = 0, 0
			}
		}
		if s.Role == Multiply && p.From <= 0 && p.From+p.Length > 0 {
			for _, ret := range rets {
				if at := p.From + ret; at > 0 && s.Returns == nil {
					s.Returns = []int{at}
				}
			}
		}
	}
	s.Start = -begin
	if err := s.set(code, mask); err != nil {
		return err
	}
	found, _, err := Set{s}.Find(r, Code(f), func(int) error { return nil })
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0].Offset != offset {
		return fmt.Errorf("%s at %#x: %w in %s, or none; take more of its code", s.Name, offset, ErrTwice, path)
	}
	return nil
}

// readerAt reads a file by offsets, which package elf does not export.
type readerAt struct{ *elf.File }

func (r readerAt) ReadAt(b []byte, off int64) (int, error) {
	for _, p := range r.Progs {
		if p.Type == elf.PT_LOAD && uint64(off) >= p.Off && uint64(off) < p.Off+p.Filesz {
			return p.ReadAt(b, off-int64(p.Off))
		}
	}
	return 0, io.EOF
}

func (r readerAt) read(b []byte, off uint64) error {
	if n, err := r.ReadAt(b, int64(off)); n < len(b) {
		return fmt.Errorf("read code at %#x: %w", off, err)
	}
	return nil
}

var (
	// "  12:	c5 fa 6f 0d 74 2d 76 fe	vmovdqu …(%rip),%xmm1        # 0xcf22c0"
	line     = regexp.MustCompile(`^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(.*)$`)
	relative = regexp.MustCompile(`(-?0x[0-9a-f]+)\(%rip\)`)
)

// linked returns which bytes of code are addresses that the linker filled in, and where
// RET instructions stand.
func linked(path string, machine elf.Machine, offset uint64, code []byte) (open []bool, rets []int, err error) {
	if machine == elf.EM_AARCH64 {
		open, rets = linkedARM(code)
		return open, rets, nil
	}
	return disassemble(path, offset, len(code))
}

// linkedARM is linked for arm64, whose instructions are told by a few of their bits: ADR,
// ADRP and what adds the rest of the address to its register, BL.
func linkedARM(code []byte) (open []bool, rets []int) {
	open = make([]bool, len(code))
	page := uint32(32) // the register that ADRP was last written to
	for at := 0; at+4 <= len(code); at += 4 {
		w := binary.LittleEndian.Uint32(code[at:])
		base := w >> 5 & 31
		switch {
		case w&0x1f000000 == 0x10000000:
			page = w & 31
		case w&0xfc000000 == 0x94000000: // BL
		case base == page && (w&0xff800000 == 0x91000000 || w&0x3f400000 == 0x3d400000): // ADD, LDR of a vector
		case w == 0xd65f03c0:
			rets = append(rets, at)
			continue
		default:
			continue
		}
		for i := range 4 {
			open[at+i] = true
		}
	}
	return open, rets
}

// disassemble is linked for amd64, by objdump.
func disassemble(path string, offset uint64, length int) (open []bool, rets []int, err error) {
	open = make([]bool, length)
	// A part may end within an instruction: more is read, and not used.
	out, err := exec.Command("objdump", "-D", "-w", "-b", "binary", "-m", "i386:x86-64",
		"--start-address", fmt.Sprint(offset), "--stop-address", fmt.Sprint(offset+uint64(length)+16), path).Output()
	if err != nil {
		return nil, nil, fmt.Errorf("run objdump: %w", err)
	}
	for text := range strings.Lines(string(out)) {
		m := line.FindStringSubmatch(strings.TrimRight(text, "\n"))
		if m == nil {
			continue
		}
		addr, _ := strconv.ParseUint(m[1], 16, 64)
		at, size := int(addr-offset), len(strings.Fields(m[2]))
		if strings.HasPrefix(m[3], "ret") || strings.HasPrefix(m[3], "repz ret") {
			rets = append(rets, at)
		}
		d := relative.FindStringSubmatch(m[3])
		if d == nil {
			continue
		}
		// The displacement is the only one, and stands before any immediate.
		disp, err := strconv.ParseInt(d[1], 0, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("objdump says %q: %w", text, err)
		}
		b := strings.Fields(m[2])
		for i := size - 4; i >= 0; i-- {
			v, _ := strconv.ParseUint(b[i+3]+b[i+2]+b[i+1]+b[i], 16, 32)
			if int32(v) == int32(disp) {
				for k := at + i; k < min(at+i+4, length); k++ {
					open[k] = true
				}
				break
			}
		}
	}
	return open, rets, nil
}
