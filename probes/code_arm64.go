package probes

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
)

const machine = elf.EM_AARCH64

// findReturns returns the offsets of all RET instructions of a function. All
// instructions have four bytes, and Go puts no data between them.
func findReturns(code []byte) ([]uint64, error) {
	var rets []uint64
	for at := 0; at+4 <= len(code); at += 4 {
		if binary.LittleEndian.Uint32(code[at:]) == 0xd65f03c0 { // RET (R30)
			rets = append(rets, uint64(at))
		}
	}
	if rets == nil {
		return nil, fmt.Errorf("no RET in %d bytes", len(code))
	}
	return rets, nil
}

// isGoPrologue reports whether a function begins with the load of the stack's
// bound: MOVD 16(g), R16.
func isGoPrologue(code []byte) bool {
	return len(code) >= 4 && binary.LittleEndian.Uint32(code) == 0xf9400b90
}

// returnedField returns the offset of the field of 32 bits that a function returns of
// the struct which is its first argument; false when the function is not as simple as
// that.
func returnedField(code []byte) (offset uint64, ok bool) {
	const btiC, ret, ldrW0X0 = 0xd503245f, 0xd65f03c0, 0xb9400000
	if len(code) >= 4 && binary.LittleEndian.Uint32(code) == btiC {
		code = code[4:]
	}
	if len(code) < 8 || binary.LittleEndian.Uint32(code[4:]) != ret {
		return 0, false
	}
	load := binary.LittleEndian.Uint32(code)
	return uint64(load>>10&0xfff) * 4, load&^(0xfff<<10) == ldrW0X0
}
