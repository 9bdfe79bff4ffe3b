package probes

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// realFunction is a function of testdata/functions.txt, and where its probes belong.
type realFunction struct {
	file, name, want string
	args             int
	code             []byte
}

func realFunctions(t testing.TB) (all []realFunction) {
	f, err := os.Open("testdata/functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		switch {
		case line == "" || strings.HasPrefix(line, "//"):
		case strings.HasPrefix(line, "# "):
			file = line[2:]
		case line[0] != '\t':
			fn := realFunction{file: file}
			head, want, _ := strings.Cut(line, ": ")
			if _, err := fmt.Sscan(head, &fn.name, &fn.args); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			fn.want = want
			all = append(all, fn)
		default:
			b, err := hex.DecodeString(line[1:])
			if err != nil {
				t.Fatal(err)
			}
			all[len(all)-1].code = append(all[len(all)-1].code, b...)
		}
	}
	return all
}

func (fn realFunction) returns() bool {
	return strings.Contains(fn.want, " exit ") || strings.Contains(fn.want, " uretprobe ")
}

func (p placing) describe(returns bool) string {
	s := fmt.Sprintf("entry %d+%d", p.entry.at, p.entry.grown)
	switch {
	case !returns:
		return s
	case p.trampoline:
		return s + fmt.Sprintf(" uretprobe %d", p.exit.at)
	}
	return s + fmt.Sprintf(" exit %d+%d", p.exit.at, p.exit.grown)
}

func TestPlaceRealFunctions(t *testing.T) {
	for _, fn := range realFunctions(t) {
		t.Run(fn.file+" "+fn.name, func(t *testing.T) {
			p := place(fn.code, cArgs[:fn.args], fn.returns())
			if got := p.describe(fn.returns()); got != fn.want {
				t.Errorf("%s, want %s", got, fn.want)
			}
			for seed := range uint64(500) {
				if err := walk(fn.code, p, cArgs[:fn.args], fn.returns(), rand.New(rand.NewPCG(seed, 0))); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestPlaceInDoubt: what is not proven stays at the entry.
func TestPlaceInDoubt(t *testing.T) {
	asm := func(parts ...string) (code []byte) {
		for _, p := range parts {
			b, err := hex.DecodeString(strings.ReplaceAll(p, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			code = append(code, b...)
		}
		return code
	}
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"nothing":                  {nil, "entry 0+0 uretprobe 0"},
		"a call first":             {asm("e8 00000000", "90", "c3"), "entry 0+0 uretprobe 0"},
		"an argument moved":        {asm("48 89 fe", "74 00", "c3"), "entry 0+0 uretprobe 0"},
		"half of one":              {asm("40 b6 01", "74 00", "c3"), "entry 0+0 uretprobe 0"}, // mov sil, 1
		"exchanged":                {asm("48 87 fe", "74 00", "c3"), "entry 0+0 uretprobe 0"},
		"a string instruction":     {asm("f3 48 a5", "74 00", "c3"), "entry 0+0 uretprobe 0"},
		"a loop to the entry":      {asm("85 d2", "74 fc", "c3"), "entry 2+0 uretprobe 2"}, // is a call like any other
		"a loop into the prologue": {asm("31 c0", "85 d2", "74 fc", "c3"), "entry 0+0 uretprobe 0"},
		"a jump that is computed":  {asm("31 c0", "85 d2", "74 02", "ff e0", "c3"), "entry 0+0 uretprobe 0"},
		"a stack that is aligned":  {asm("48 83 e4 f0", "74 00", "c3"), "entry 0+0 uretprobe 0"}, // and rsp, -16
		"bytes that are no code":   {asm("31 c0", "74 01", "06", "c3"), "entry 0+0 uretprobe 0"},
		"a part moved away":        {asm("48 83 ec 08", "85 d2", "74 7f", "48 83 c4 08", "c3"), "entry 0+0 uretprobe 0"},
		"the result set later":     {asm("48 83 ec 08", "75 05", "e8 00000000", "75 00", "31 c0", "48 83 c4 08", "c3"), "entry 0+0 uretprobe 0"},
		"a call later":             {asm("53", "75 00", "e8 00000000", "5b", "c3"), "entry 0+0 uretprobe 0"},
		"a way around the exit":    {asm("53", "75 09", "e8 00000000", "75 00", "5b", "c3", "5b", "c3"), "entry 0+0 uretprobe 0"},
		"a stack out of balance":   {asm("53", "75 00", "c3"), "entry 0+0 uretprobe 0"},
		"one way out":              {asm("53", "e8 00000000", "75 00", "5b", "c3"), "entry 0+0 exit 6+8"},
		"two branches on it":       {asm("53", "e8 00000000", "78 00", "75 00", "5b", "c3"), "entry 0+0 exit 8+8"},
		"a test first":             {asm("48 83 ec 08", "85 d2", "74 05", "e8 00000000", "74 00", "48 83 c4 08", "c3"), "entry 6+8 exit 13+8"},
		"push of 16 bits":          {asm("66 50", "66 58", "74 00", "c3"), "entry 0+0 uretprobe 0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := place(c.code, cArgs[:3], true).describe(true); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestPlaceGo: the check of the stack's bound ends in a branch that every call crosses
// before anything has moved. This test is itself a Go program with crypto/tls.
func TestPlaceGo(t *testing.T) {
	exe, target := targetIn(t, "/proc/self/exe")
	for _, h := range target.hooks {
		for _, s := range h.sites {
			p := s.probe(false, false)
			b := make([]byte, 2)
			if _, err := exe.ReadAt(b, int64(s.start+p.at)); err != nil {
				t.Fatal(err)
			}
			switch jbe := b[0] == 0x76 || b[0] == 0x0f && b[1] == 0x86; {
			case strings.HasSuffix(h.program, "_return") && (p.at != 0 || b[0] != 0xc3):
				t.Errorf("the return of %s is not at a RET", s.name)
			case !strings.HasSuffix(h.program, "_return") && !jbe:
				t.Errorf("%s is placed at %d, on % x", s.name, p.at, b)
			case p.grown != 0:
				t.Errorf("%s: the stack has grown by %d", s.name, p.grown)
			}
		}
	}
}

// walk follows one of the ways through a function, chosen by lot, as the processor
// would, and reports what a placing promises and does not hold.
func walk(code []byte, p placing, args []register, returns bool, lot *rand.Rand) error {
	var at, depth, entered, exited int
	fresh, result := true, true // the arguments are as they came, the result as it will be
	marked := bytes.HasPrefix(code, endbr64)
	for range 2000 {
		// A jump to the entry is as good as a call, and so is one behind its mark, where the
		// probe sees it.
		if at == 0 || marked && at == len(endbr64) && at == p.entry.at {
			entered, exited, fresh = 0, 0, true
		}
		if at == p.entry.at {
			if entered++; entered != 1 || !fresh || depth != p.entry.grown {
				return fmt.Errorf("entry at %d: crossed %d times, arguments fresh: %v, stack %d", at, entered, fresh, depth)
			}
			if p.trampoline && (at != p.exit.at || depth != 0) {
				return fmt.Errorf("uretprobe at %d with a stack of %d", p.exit.at, depth)
			}
		}
		if returns && !p.trampoline && at == p.exit.at {
			if exited++; exited != 1 || depth != p.exit.grown {
				return fmt.Errorf("exit at %d: crossed %d times, stack %d", at, exited, depth)
			}
			result = true
		}
		if at < 0 || at >= len(code) {
			return nil // to another function
		}
		if strings.HasPrefix(string(code[at:]), string(endbr64)) {
			at += 4
			continue
		}
		in, err := x86asm.Decode(code[at:], 64)
		if err != nil || in.Op == 0 {
			return nil // nor can the processor
		}
		next := at + in.Len
		if in.Op == x86asm.RET {
			if entered != 1 || returns && !p.trampoline && (exited != 1 || !result) {
				return fmt.Errorf("RET at %d: entered %d, exited %d times, result kept: %v", at, entered, exited, result)
			}
			return nil
		}
		for _, r := range args {
			fresh = fresh && !touches(in, r)
		}
		result = result && !touches(in, regAX)
		switch dst, isReg := number(in.Args[0]); in.Op {
		case x86asm.PUSH:
			depth += 8
		case x86asm.POP:
			depth -= 8
		case x86asm.SUB, x86asm.ADD:
			if isReg && dst == regSP {
				by, ok := in.Args[1].(x86asm.Imm)
				if !ok {
					return nil
				}
				if in.Op == x86asm.ADD {
					by = -by
				}
				depth += int(by)
			}
		case x86asm.LEAVE, x86asm.ENTER, x86asm.UD2, x86asm.HLT:
			return nil // where the stack is then cannot be said here
		default:
			if isReg && dst == regSP && touches(in, regSP) {
				return nil
			}
		}
		at = next
		switch rel, ok := in.Args[0].(x86asm.Rel); {
		case in.Op == x86asm.CALL:
		case ok && (in.Op == x86asm.JMP || lot.IntN(2) == 0):
			at = next + int(rel)
		case in.Op == x86asm.JMP:
			return nil
		}
	}
	return nil
}

// touches reports whether an instruction may write a register, as its operands and
// its name say.
func touches(in x86asm.Inst, r register) bool {
	name := in.Op.String()
	reads := name == "CMP" || name == "TEST" || name == "PUSH" || name == "BT"
	if dst, ok := number(in.Args[0]); ok && dst == r && !reads {
		return true
	}
	for _, implicit := range []string{"CALL", "MUL", "IMUL", "DIV", "IDIV", "CDQ", "CWD", "CBW", "CWDE", "CDQE", "CQO", "XCHG", "XADD", "CMPXCHG",
		"CPUID", "RDTSC", "LODS", "STOS", "MOVSB", "MOVSD", "MOVSQ", "MOVSW", "SCAS", "CMPS", "INS", "OUTS", "LOOP", "SYSCALL", "XLATB", "LAHF"} {
		if strings.HasPrefix(name, implicit) {
			return true
		}
	}
	return name == "IN"
}

// FuzzPlace: whatever the code, a placing holds on every way through it.
func FuzzPlace(f *testing.F) {
	for _, fn := range realFunctions(f) {
		f.Add(fn.code, uint64(1))
	}
	f.Add([]byte("\xf3\x0f\x1e\xfa\x70\xfe"), uint64(0)) // jumps to where its probe stands
	f.Fuzz(func(t *testing.T, code []byte, seed uint64) {
		for _, args := range [][]register{nil, cArgs[:1], cArgs[:4], goArgs} {
			p := place(code, args, true)
			for _, s := range []spot{p.entry, p.exit} {
				if s.at != 0 && !emulated(code[s.at:]) {
					t.Fatalf("placed at %d, which is not emulated", s.at)
				}
			}
			if p == plain {
				continue
			}
			lot := rand.New(rand.NewPCG(seed, 1))
			for range 50 {
				if err := walk(code, p, args, true, lot); err != nil {
					t.Fatalf("%s: %v", p.describe(true), err)
				}
			}
		}
	})
}
