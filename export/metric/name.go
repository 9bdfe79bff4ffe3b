package metric

import (
	"strings"

	"github.com/tollwire/tollwire/account"
)

// name returns s, or account.Other when it can't be what it says: names of models,
// errors and hosts come off the wire, and a client may send anything.
func name(s string) string {
	s = account.Label(s)
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._:/@+-~,=()[] ", c) >= 0 {
			continue
		}
		return account.Other
	}
	return s
}

// clean makes a value that the agent states of itself fit to be sent: a program's name
// may be any bytes.
func (s Sample) clean() Sample {
	for i, a := range s.Attrs {
		if v := strings.ToValidUTF8(a.Value, "\uFFFD"); v != a.Value {
			s.Attrs = append(s.Attrs[:i:i], append([]Attr{{a.Key, v}}, s.Attrs[i+1:]...)...)
		}
	}
	return s
}
