package metric

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds a label's value in bytes: an ARN of a model fits, a prompt sent as
// a model's name does not.
const maxName = 160

// name returns s, or "other" when it can't be what it says: names of models, errors
// and hosts come off the wire, and a client may send anything.
func name(s string) string {
	if len(s) > maxName {
		return other
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._:/@+-~,=()[] ", c) >= 0 {
			continue
		}
		return other
	}
	return s
}

// label returns s, or "other": names of workloads and graph nodes may be in any
// language, but must be short and printable.
func label(s string) string {
	if len(s) > maxName || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return other
	}
	return s
}
