package probes

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// TestSpills: that arguments stay above the return address is believed where the code says
// so on every way.
func TestSpills(t *testing.T) {
	const (
		ax   = "4889442408 " // mov %rax,8(%rsp)
		bx   = "48895c2410 "
		cx   = "48894c2418 "
		call = "e800000000 "
		ret  = "c3"
	)
	for code, want := range map[string]bool{
		ax + bx + cx + call + ret:                                   true,
		"7610 " + ax + cx + bx + ret + ax + "ebe9":                  true, // more stack, and again
		"4883ec10 4889442418 48895c2420 48894c2428 4883c410 " + ret: true,
		"4883ec10 4889442408 48895c2410 48894c2418 4883c410 " + ret: false, // below
		ax + bx + call + cx + ret:                                   false,
		ax + bx + ret:                                               false,
		ax + cx + bx + "4883c008 " + ret:                            true,
		ax + bx + "4883c108 " + cx + ret:                            false, // another CX
		"7610 " + ax + bx + cx + ret + ret:                          false, // a way around
		ax + bx + cx + call + bx + ret:                              false, // written anew
		ax + bx + cx + "0f110424 " + ret:                            false, // 16 bytes from below on
		ax + bx + cx + "0f114424f8 " + ret:                          true,
		ax + bx + cx + "488d7c2408 " + call + ret:                   false, // its address is given away
		ax + bx + cx + "4889442420 " + ret:                          true,  // behind
		ax + bx + cx + "488904cc " + ret:                            false, // by an index
		ax + bx + cx + "48894508 " + ret:                            false, // by the frame's pointer
		ax + bx + cx + "ffe0":                                       false, // nobody knows where to
		"4889c3 " + ax + bx + cx + ret:                              false, // BX is AX's
		"48894424 08 " + "48895c2410 894c2418 " + ret:               false, // half of CX
		ax + ax + bx + ret:                                          false, // CX never
		"7505 " + ax + bx + cx + ret:                                false, // past AX
		ax + bx + cx + "ebf4":                                       false, // and never returns
		ax + "74f9 " + bx + cx + ret:                                true,  // begins again, as nothing was changed
		ax + bx + cx + call + "74ef " + ret:                         false, // BX again, who knows whose
		ax + "4889542408 " + bx + cx + ret:                          false, // another in between
		ax + "488d7c2408 " + bx + cx + call + ret:                   false,
		ax + bx + cx + "4889e7 " + call + ret:                       false, // the stack pointer is given away
		ax + bx + cx + "4889e5 " + call + ret:                       true,
		strings.Repeat("90 ", maxPlaced) + ax + bx + cx + ret:       false, // too long
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := spills(b, goArgs[:3]); got != want {
			t.Errorf("% .60x: %v", b, got)
		}
	}
	_, target := targetIn(t, "/proc/self/exe")
	for program, name := range map[string]string{"gotls_read_return": goRead, "gotls_return": goWrite} {
		if !slices.ContainsFunc(target.hooks, func(h hook) bool { return h.program == program && h.sites[0].name == name }) {
			t.Errorf("no %s on %s", program, name)
		}
	}
}
