package probes

import (
	"bytes"

	"golang.org/x/arch/x86/x86asm"
)

// A register is a general register by its number in machine code, whatever its width.
type register int

const (
	regAX register = 0
	regCX register = 1
	regDX register = 2
	regBX register = 3
	regSP register = 4
	regSI register = 6
	regDI register = 7
	reg14 register = 14
)

// cArgs are the registers of a C function's arguments (System V ABI, 3.2.3).
var cArgs = []register{regDI, regSI, regDX, regCX, 8, 9}

// goArgs are the registers of a Go function's first three words of arguments, and of
// the goroutine (go.dev/src/cmd/compile/abi-internal).
var goArgs = []register{regAX, regBX, regCX, reg14}

// popped is how many bytes less there are on the stack when a function has returned
// than when it was entered: those of the return address.
const popped = 8

// emulated reports whether the kernel emulates the first instruction of code under
// a uprobe: push, nop, jmp and jcc, as since Linux 4.15 (push_setup_insn and
// branch_setup_insn of arch/x86/kernel/uprobes.c). It emulates call too, but many
// kernels leave its return address out of a program's shadow stack.
func emulated(code []byte) bool {
	long := len(code) > 1
	switch b := code[0]; {
	case b >= 0x50 && b <= 0x57, b == 0x90, b >= 0x70 && b <= 0x7f, b == 0xeb, b == 0xe9:
		return true
	case b == 0x41:
		return long && code[1] >= 0x50 && code[1] <= 0x57
	case b == 0x0f:
		return long && code[1] >= 0x80 && code[1] <= 0x8f
	}
	return false
}

// routine is a function's code as control flows through it from the entry.
type routine struct {
	code  []byte
	steps map[int]*step
	// What decoding could not follow. A probe that this could touch is not placed.
	lost bool // where control goes
	bent bool // where the stack stands
	tail bool // leaves by jumping to another function
}

type step struct {
	x86asm.Inst
	grown int // before it runs
	next  []int
	ret   bool
}

// endbr64 is a no-operation that package x86asm does not know.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

func decodeStep(code []byte) (x86asm.Inst, bool) {
	if bytes.HasPrefix(code, endbr64) {
		return x86asm.Inst{Op: x86asm.NOP, Len: len(endbr64)}, true
	}
	in, err := x86asm.Decode(code, 64)
	return in, err == nil && in.Op != 0 && in.Len > 0
}

// decode follows a function's code. It never leaves it.
func decode(code []byte) *routine {
	r := &routine{code: code, steps: make(map[int]*step)}
	type visit struct{ at, grown int }
	for todo := []visit{{}}; len(todo) > 0; {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s := r.steps[v.at]; s != nil {
			r.bent = r.bent || s.grown != v.grown
			continue
		}
		if v.at >= len(code) {
			r.lost = true
			continue
		}
		in, ok := decodeStep(code[v.at:])
		if !ok {
			r.lost = true
			continue
		}
		s := &step{Inst: in, grown: v.grown}
		r.steps[v.at] = s
		grown, ok := grows(in)
		grown += v.grown
		if !ok || grown < 0 {
			r.bent = true
		}
		r.follow(s, v.at)
		for _, at := range s.next {
			todo = append(todo, visit{at, grown})
		}
	}
	return r
}

// follow finds where control goes after a step.
func (r *routine) follow(s *step, at int) {
	after := at + s.Len
	rel, direct := s.Args[0].(x86asm.Rel)
	to := after + int(rel)
	inside := direct && to >= 0 && to < len(r.code)
	switch s.Op {
	case x86asm.RET:
		s.ret = true
		r.bent = r.bent || s.grown != 0
	case x86asm.UD1, x86asm.UD2, x86asm.HLT:
	case x86asm.CALL:
		if after < len(r.code) { // else it does not return
			s.next = []int{after}
		}
	case x86asm.JMP:
		switch {
		case inside:
			s.next = []int{to}
		case direct && s.grown == 0:
			r.tail = true
		default:
			r.lost = true
		}
	case x86asm.LRET, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ, x86asm.SYSRET, x86asm.SYSEXIT, x86asm.LJMP, x86asm.LCALL:
		r.lost = true
	default:
		s.next = []int{after}
		if inside { // jumps when a condition holds
			s.next = append(s.next, to)
		}
		r.lost = r.lost || direct && !inside
	}
}

// grows returns by how many bytes an instruction makes the stack grow; false when
// it does something else to the stack pointer.
func grows(in x86asm.Inst) (n int, ok bool) {
	dst, isReg := number(in.Args[0])
	switch in.Op {
	case x86asm.PUSH:
		return 8, !short(in)
	case x86asm.POP:
		return -8, !short(in) && (!isReg || dst != regSP)
	case x86asm.SUB, x86asm.ADD:
		if !isReg || dst != regSP {
			return 0, true
		}
		by, isImm := in.Args[1].(x86asm.Imm)
		if in.Op == x86asm.ADD {
			by = -by
		}
		return int(by), isImm && in.Args[0] == x86asm.RSP && by > -1<<20 && by < 1<<20
	case x86asm.RET:
		return 0, in.Args[0] == nil
	case x86asm.CALL, x86asm.CMP, x86asm.TEST, x86asm.JMP:
		return 0, true
	case x86asm.LEAVE, x86asm.ENTER, x86asm.PUSHF, x86asm.PUSHFQ, x86asm.POPF, x86asm.POPFQ:
		return 0, false
	case x86asm.XCHG, x86asm.XADD, x86asm.CMPXCHG:
		src, isReg2 := number(in.Args[1])
		return 0, (!isReg || dst != regSP) && (!isReg2 || src != regSP)
	}
	return 0, !isReg || dst != regSP
}

// short reports whether an instruction has the prefix that makes it one of 16 bits.
func short(in x86asm.Inst) bool {
	for _, p := range in.Prefix {
		if p&0xff == x86asm.PrefixDataSize {
			return true
		}
	}
	return false
}

// number returns the general register that an operand is.
func number(a x86asm.Arg) (register, bool) {
	r, ok := a.(x86asm.Reg)
	switch {
	case !ok:
	case r >= x86asm.AL && r <= x86asm.BL:
		return register(r - x86asm.AL), true
	case r >= x86asm.AH && r <= x86asm.BH:
		return register(r - x86asm.AH), true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return register(r-x86asm.SPB) + regSP, true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return register(r - x86asm.AX), true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return register(r - x86asm.EAX), true
	case r >= x86asm.RAX && r <= x86asm.R15:
		return register(r - x86asm.RAX), true
	}
	return 0, false
}

// keeps reports whether an instruction surely leaves the registers as they are,
// but for the stack pointer: what is not known to write its first operand or nothing
// is not trusted.
func keeps(in x86asm.Inst, regs []register) bool {
	switch in.Op {
	case x86asm.NOP, x86asm.TEST, x86asm.CMP, x86asm.PUSH, x86asm.JMP, x86asm.RET, x86asm.UD2,
		x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JE, x86asm.JNE, x86asm.JG, x86asm.JGE, x86asm.JL,
		x86asm.JLE, x86asm.JO, x86asm.JNO, x86asm.JP, x86asm.JNP, x86asm.JS, x86asm.JNS:
		return true
	case x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.LEA, x86asm.ADD, x86asm.SUB, x86asm.XOR,
		x86asm.AND, x86asm.OR, x86asm.NOT, x86asm.NEG, x86asm.INC, x86asm.DEC, x86asm.POP, x86asm.MOVD, x86asm.MOVQ,
		x86asm.MOVUPS, x86asm.MOVAPS, x86asm.MOVDQA, x86asm.MOVDQU, x86asm.PXOR, x86asm.XORPS:
		dst, isReg := number(in.Args[0])
		for _, r := range regs {
			if isReg && r == dst {
				return false
			}
		}
		return true
	}
	return false
}

// entry returns the first instruction that the kernel emulates, provided that the
// args still stand in their registers there. Up to the first branch all
// instructions are crossed by every call, and a branch is emulated itself; that each
// call crosses it once is what is left to show.
func (r *routine) entry(args []register) (spot, bool) {
	for at := 0; ; {
		s := r.steps[at]
		if s == nil {
			return spot{}, false
		}
		if emulated(r.code[at:]) {
			return spot{at, s.grown}, r.once(at)
		}
		if _, ok := grows(s.Inst); !ok || !keeps(s.Inst, args) || len(s.next) != 1 {
			return spot{}, false
		}
		at += s.Len
	}
}

// once reports whether nothing jumps back to between the entry and at. A jump to the
// entry itself is as good as a call, and seen as one in any case.
func (r *routine) once(at int) bool {
	if at == 0 || at == len(endbr64) && bytes.HasPrefix(r.code, endbr64) {
		return true
	}
	if r.lost || r.tail && r.bent { // the tail may be a part that was moved away
		return false
	}
	for from, s := range r.steps {
		for _, to := range s.next {
			if to > 0 && to <= at && (to != from+s.Len || from >= at) {
				return false
			}
		}
	}
	return true
}

// exit returns an emulated instruction that every way out of the function crosses
// once, and after which nothing touches the result.
func (r *routine) exit() (best spot, found bool) {
	if r.lost || r.bent || r.tail {
		return spot{}, false
	}
	returns := r.returning()
	for at, s := range r.steps {
		if !returns[at] || s.ret || !emulated(r.code[at:]) || found && at < best.at {
			continue
		}
		if r.leaves(0, at) { // past it
			continue
		}
		if r.untouched(at, returns) {
			best, found = spot{at, s.grown}, true
		}
	}
	return best, found
}

// returning returns the steps from which a RET can be reached.
func (r *routine) returning() map[int]bool {
	from := make(map[int][]int)
	var todo []int
	for at, s := range r.steps {
		for _, to := range s.next {
			from[to] = append(from[to], at)
		}
		if s.ret {
			todo = append(todo, at)
		}
	}
	reach := make(map[int]bool)
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !reach[at] {
			reach[at] = true
			todo = append(todo, from[at]...)
		}
	}
	return reach
}

// leaves reports whether a RET can be reached from start without crossing without.
func (r *routine) leaves(start, without int) bool {
	seen := map[int]bool{without: true}
	for todo := []int{start}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		if r.steps[at].ret {
			return true
		}
		todo = append(todo, r.steps[at].next...)
	}
	return false
}

// untouched reports whether from at on, on every way that returns, the result stays
// in its register and at is not crossed again.
func (r *routine) untouched(at int, returns map[int]bool) bool {
	seen := make(map[int]bool)
	for todo := []int{at}; len(todo) > 0; {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := r.steps[i]
		if !keeps(s.Inst, []register{regAX}) {
			return false
		}
		for _, to := range s.next {
			if to == at {
				return false
			}
			if returns[to] && !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	return true
}
