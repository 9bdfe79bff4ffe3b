package probes

import (
	"bytes"
	"debug/elf"
	"fmt"

	"golang.org/x/arch/x86/x86asm"
)

const machine = elf.EM_X86_64

// findReturns returns the offsets of all RET instructions of a function.
func findReturns(code []byte) ([]uint64, error) {
	var rets []uint64
	for at := 0; at < len(code); {
		in, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			return nil, fmt.Errorf("at offset %#x: %w", at, err)
		}
		if in.Op == x86asm.RET {
			rets = append(rets, uint64(at))
		}
		at += in.Len
	}
	if rets == nil {
		return nil, fmt.Errorf("no RET in %d bytes", len(code))
	}
	return rets, nil
}

// isGoPrologue reports whether a function begins with the check of the stack's
// bound: CMPQ SP, 16(R14), or LEAQ -x(SP), R12 where the frame is large.
func isGoPrologue(code []byte) bool {
	return bytes.HasPrefix(code, []byte{0x49, 0x3b, 0x66, 0x10}) ||
		bytes.HasPrefix(code, []byte{0x4c, 0x8d, 0x64, 0x24}) ||
		bytes.HasPrefix(code, []byte{0x4c, 0x8d, 0xa4, 0x24})
}

// returnedField returns the offset of the field of 32 bits that a function returns of
// the struct which is its first argument, where it returns any but the first: OpenSSL
// since 3.2 looks there whether it is one. False when the function does anything else.
func returnedField(code []byte) (offset uint64, ok bool) {
	code = bytes.TrimPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) // ENDBR64
	loaded := false                                               // EAX has the field, to be returned
	for len(code) > 0 {
		in, err := x86asm.Decode(code, 64)
		if err != nil {
			return 0, false
		}
		code = code[in.Len:]
		field, memory := in.Args[1].(x86asm.Mem)
		switch in.Op {
		case x86asm.RET:
			ok, loaded = ok || loaded, false
			continue
		case x86asm.XOR: // an error's zero; what -fzero-call-used-regs clears
			if in.Args[0] != in.Args[1] || loaded && in.Args[0] == x86asm.EAX {
				return 0, false
			}
			continue
		case x86asm.MOV:
			if in.Args[0] != x86asm.EAX || !memory || in.MemBytes != 4 || field.Segment != 0 || field.Base != x86asm.RDI || field.Index != 0 {
				return 0, false
			}
			if field.Disp > 0 {
				if offset != 0 {
					return 0, false // which of them?
				}
				offset, loaded = uint64(field.Disp), true
				continue
			}
		case x86asm.TEST, x86asm.CMP, x86asm.AND, x86asm.JE, x86asm.JNE, x86asm.JMP, x86asm.NOP:
		default:
			return 0, false
		}
		if loaded {
			return 0, false
		}
	}
	return offset, ok
}
