package probes

// maxPlaced is the longest function that is decoded to place a probe, in bytes.
const maxPlaced = 16 << 10

// A spot is an instruction of a function that a probe may stand on.
type spot struct {
	at    int // from the function's first byte
	grown int // bytes that the stack has grown by since the entry
}

// A placing is how one function's calls are seen: at the entry, where the arguments
// that were asked for stand in the registers they came in, and at the exit, where the
// result stands in its own. With trampoline set the exit is a uretprobe, which is put
// in place where exit says.
type placing struct {
	entry, exit spot
	trampoline  bool
}

// plain is right for every function: all at its first instruction.
var plain = placing{trampoline: true}

// place returns the cheapest placing of a function that its code proves right.
// returns says whether its return matters.
func place(code []byte, args []register, returns bool) placing {
	if len(code) > maxPlaced {
		return plain
	}
	r := decode(code)
	entry, ok := r.entry(args)
	if !ok {
		return plain
	}
	if !returns {
		return placing{entry: entry}
	}
	if exit, ok := r.exit(); ok {
		return placing{entry: entry, exit: exit}
	}
	// A uretprobe's trampoline takes the place of the return address, which must be
	// the topmost word of the stack; entry and exit share the trap.
	if entry.grown == 0 {
		return placing{entry: entry, exit: entry, trampoline: true}
	}
	return plain
}

// spills reports whether a Go function surely has its first words of arguments, args, in the
// place that its caller has left for them above the return address, whenever it returns.
func spills(code []byte, args []register) bool {
	return len(code) <= maxPlaced && decode(code).spills(args)
}

// A probe is a placing's entry or exit as the kernel is asked for it.
type probe struct {
	at    uint64 // from the function's first byte
	ret   bool   // a uretprobe
	grown uint32 // how much deeper the stack is than at the entry, or than at a uretprobe
}

// probe returns the entry's probe, or the exit's. Without cookies, by which a program
// is told how the stack has grown, only what need not be told is placed.
func (p placing) probe(exit, cookies bool) probe {
	if !cookies && (p.entry.grown != 0 || !p.trampoline && p.exit != spot{}) {
		p = plain
	}
	switch {
	case !exit:
		return probe{at: uint64(p.entry.at), grown: uint32(p.entry.grown)}
	case p.trampoline:
		return probe{at: uint64(p.exit.at), ret: true}
	default:
		return probe{at: uint64(p.exit.at), grown: uint32(p.exit.grown + popped)}
	}
}
