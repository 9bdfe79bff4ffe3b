package account

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Other stands for names that are not kept apart.
const Other = "other"

// maxLabel bounds a label's value in bytes: an ARN of a model fits, a prompt sent as
// a model's name does not.
const maxLabel = 160

// Label returns s, or Other: names of workloads, graph nodes and models may be in any
// language, but must be short and printable to have a line or a series of their own.
func Label(s string) string {
	if len(s) > maxLabel || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Other
	}
	return s
}
