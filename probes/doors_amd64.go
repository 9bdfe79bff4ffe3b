package probes

import "golang.org/x/arch/x86/x86asm"

// A door is a function that a program calls, by its range in the file.
type door struct {
	start uint64
	code  []byte
}

// behind returns where the function begins that OpenSSL's plain and ex, as SSL_read
// and SSL_read_ex, are two doors to: ssl_read_internal, which has no name in a library
// without its own symbols and takes what ex takes. One trap there sees both, and it may
// begin with an instruction that is emulated where ex has none. It is behind ex if ex
// does no more than call it with the arguments as they came, and make a result below
// zero zero; and behind plain if that calls it with the same session and buffer, and
// with room of its own for the length.
func behind(plain, ex door) (start uint64, ok bool) {
	at, after, ok := ex.passesOn()
	if !ok || !ex.clamps(after) {
		return 0, false
	}
	again, ok := plain.asksFor()
	return ex.start + uint64(at), ok && plain.start+uint64(again) == ex.start+uint64(at)
}

// passesOn returns which function a door calls first, unless it does anything before
// that could matter, and where it goes on after the call.
func (d door) passesOn() (to, after int, ok bool) {
	for at := 0; at < len(d.code); {
		in, ok := decodeStep(d.code[at:])
		if !ok {
			return 0, 0, false
		}
		at += in.Len
		if rel, direct := in.Args[0].(x86asm.Rel); direct {
			return at + int(rel), at, in.Op == x86asm.CALL
		}
		if !keeps(in, cArgs[:4]) || in.Op == x86asm.RET {
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// clamps reports whether from at on a door only returns the result it has, or zero in
// place of one that is below zero.
func (d door) clamps(at int) bool {
	zero := make(map[register]bool)
	sign, clamped := false, false // the flags are those of the result
	for at < len(d.code) {
		in, ok := decodeStep(d.code[at:])
		if !ok {
			return false
		}
		dst, isReg := number(in.Args[0])
		src, _ := number(in.Args[1])
		switch {
		case in.Op == x86asm.RET:
			return clamped
		case in.Op == x86asm.TEST && in.Args[0] == x86asm.EAX && in.Args[1] == x86asm.EAX:
			sign = true
		case in.Op == x86asm.CMOVS && in.Args[0] == x86asm.EAX && zero[src] && sign:
			clamped = true
		case !isReg || dst == regAX:
			return false
		case in.Op == x86asm.XOR && in.Args[0] == in.Args[1]:
			zero[dst], sign = true, false
		case in.Op == x86asm.MOV && in.Args[1] == x86asm.Imm(0):
			zero[dst] = true
		case in.Op == x86asm.ADD && in.Args[0] == x86asm.RSP:
			sign = false
		default:
			return false
		}
		at += in.Len
	}
	return false
}

// asksFor returns which function a door with a length of 32 bits calls, once it has
// found that the length is not below zero.
func (d door) asksFor() (to int, ok bool) {
	sign, room := false, false
	for at := 0; at < len(d.code); {
		in, ok := decodeStep(d.code[at:])
		if !ok {
			return 0, false
		}
		at += in.Len
		dst, isReg := number(in.Args[0])
		mem, isMem := in.Args[1].(x86asm.Mem)
		switch rel, direct := in.Args[0].(x86asm.Rel); {
		case in.Op == x86asm.CALL && direct:
			return at + int(rel), room
		case in.Op == x86asm.JS && sign:
			continue
		case direct:
			return 0, false
		case in.Op == x86asm.TEST && in.Args[0] == x86asm.EDX && in.Args[1] == x86asm.EDX:
			sign = true
			continue
		case in.Op == x86asm.MOVSXD && in.Args[0] == x86asm.RDX && in.Args[1] == x86asm.EDX,
			in.Op == x86asm.MOV && in.Args[0] == x86asm.EDX && in.Args[1] == x86asm.EDX:
		case in.Op == x86asm.RET || !keeps(in, cArgs[:3]):
			return 0, false
		case isReg && dst == regCX:
			room = in.Op == x86asm.MOV && in.Args[0] == x86asm.RCX && in.Args[1] == x86asm.RSP ||
				in.Op == x86asm.LEA && in.Args[0] == x86asm.RCX && isMem && mem.Base == x86asm.RSP && mem.Index == 0
		}
		sign = false
	}
	return 0, false
}
