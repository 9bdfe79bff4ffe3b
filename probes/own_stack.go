package probes

import (
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Since Linux 6.13 the kernel gives a large program one stack for each CPU, not the task's
// ("private stack"), as it takes for granted that a program does not run twice there at a
// time. A uprobe's may, where the kernel can be preempted: the task that comes next on the
// CPU meets the same probe, and writes over what the first one's run has on its stack. Then
// a call is counted and lost, or is another's. A program that may end in a tail call has
// the task's stack as before: so each is given one that never happens.

// nowhere is the tail calls' map, which stays empty.
const nowhere = "nowhere"

// stackPointer is where struct pt_regs has the program's own, which is never zero.
var stackPointer = map[string]int16{"amd64": 152, "arm64": 248}[runtime.GOARCH]

// hasPrivateStacks reports whether the kernel may give programs a stack for each CPU.
var hasPrivateStacks = sync.OnceValue(func() bool {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var aux *btf.Struct
	return kernel.TypeByName("bpf_prog_aux", &aux) == nil &&
		slices.ContainsFunc(aux.Members, func(m btf.Member) bool { return m.Name == "priv_stack_ptr" })
})

// withOwnStacks has the programs of uprobes run on the task's stack.
func withOwnStacks(spec *ebpf.CollectionSpec) {
	spec.Maps[nowhere] = &ebpf.MapSpec{Name: nowhere, Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	for _, p := range spec.Programs {
		if isUprobe(p) {
			p.Instructions = withOwnStack(p.Instructions)
		}
	}
}

func isUprobe(p *ebpf.ProgramSpec) bool {
	return p.Type == ebpf.Kprobe && strings.HasPrefix(p.SectionName, "u")
}

func withOwnStack(program asm.Instructions) asm.Instructions {
	const goOn = "go_on"
	// What stands for the program as a whole stands at its first instruction.
	old := &program[0]
	first := asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(old.Symbol()).WithSource(old.Source())
	first = btf.WithFuncMetadata(first, btf.FuncMetadata(old))
	*old = btf.WithFuncMetadata(old.WithSymbol(""), nil)
	return append(asm.Instructions{
		first,
		asm.LoadMem(asm.R0, asm.R1, stackPointer, asm.DWord),
		asm.JNE.Imm(asm.R0, 0, goOn),
		asm.LoadMapPtr(asm.R2, 0).WithReference(nowhere),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol(goOn),
	}, program...)
}
