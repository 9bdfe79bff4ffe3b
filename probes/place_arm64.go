package probes

// A register is a general register by its number.
type register int

var (
	cArgs  = []register{0, 1, 2, 3, 4, 5}
	goArgs = []register{0, 1, 2, 28}
)

// popped: the return address is in a register.
const popped = 0

// routine is a function's code. On arm64 the kernel steps all that functions begin
// and end with, so that no place is better than another.
type routine struct{}

func decode([]byte) *routine { return &routine{} }

func (*routine) entry([]register) (spot, bool) { return spot{}, false }
func (*routine) exit() (spot, bool)            { return spot{}, false }

// spills is not found out on arm64.
func (*routine) spills([]register) bool { return false }

func emulated([]byte) bool { return false }
