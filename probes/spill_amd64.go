package probes

import (
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// spills is true where the function puts each of its arguments there before it does anything
// else, on every way that returns, and nothing else is written there.
func (r *routine) spills(args []register) bool {
	if r.lost || r.bent || r.tail {
		return false
	}
	words, own := make(map[int]bool), make(map[int]bool) // that are spilled, and the steps that do so
	first, last := -1, 0
	for at := 0; len(words) < len(args); {
		s := r.steps[at]
		if s == nil {
			return false
		}
		if i, ok := s.spill(); ok && i < len(args) && s.Args[1] == x86asm.RAX+x86asm.Reg(args[i]) {
			if words[i] || r.leaves(0, at) {
				return false
			}
			words[i], own[at], last = true, true, at
			if first < 0 {
				first = at
			}
		} else if !keeps(s.Inst, args) || s.Op == x86asm.RET || s.Op == x86asm.JMP {
			return false
		}
		at += s.Len // at a branch, for more stack, past it
	}
	later := r.after(last)
	for at := range r.after(first) {
		if r.steps[at].mayWrite(8*len(args)) && (later[at] || !own[at]) {
			return false
		}
	}
	return true
}

// spill returns which word above the return address the step writes a register to.
func (s *step) spill() (word int, ok bool) {
	m, ok := s.Args[0].(x86asm.Mem)
	if !ok || s.Op != x86asm.MOV || s.DataSize != 64 || m.Base != x86asm.RSP || m.Index != 0 || m.Segment != 0 {
		return 0, false
	}
	above := int(m.Disp) - s.grown - popped
	return above / 8, above >= 0 && above%8 == 0
}

// mayWrite reports whether the step may write to the first n bytes above the return address,
// or has others know where they are.
func (s *step) mayWrite(n int) bool {
	switch s.Op {
	case x86asm.CMP, x86asm.TEST:
		return false
	case x86asm.LEA:
		return s.reaches(s.Args[1], n)
	case x86asm.MOV:
		if s.Args[1] == x86asm.RSP && s.Args[0] != x86asm.RBP {
			return true
		}
	}
	return s.reaches(s.Args[0], n)
}

// reaches reports whether an operand is memory of the stack that may be among the first n
// bytes above the return address.
func (s *step) reaches(operand x86asm.Arg, n int) bool {
	m, ok := operand.(x86asm.Mem)
	if !ok || m.Base != x86asm.RSP {
		return ok && m.Base == x86asm.RBP
	}
	above, size := int(m.Disp)-s.grown-popped, s.MemBytes
	if size == 0 {
		size = 64
	}
	if s.Op == x86asm.LEA {
		size = 1
	}
	return m.Index != 0 || above < n && above+size > 0
}

// after returns the steps that can be reached from one.
func (r *routine) after(start int) map[int]bool {
	seen := make(map[int]bool)
	for todo := slices.Clone(r.steps[start].next); len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[at] {
			seen[at] = true
			todo = append(todo, r.steps[at].next...)
		}
	}
	return seen
}
