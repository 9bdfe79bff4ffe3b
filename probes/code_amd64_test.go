package probes

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestReturnedField: SSL_get_shutdown as Debian's compilers have made it, and functions
// of which nothing may be said.
func TestReturnedField(t *testing.T) {
	for name, v := range map[string]struct {
		code   string
		offset uint64
		ok     bool
	}{
		"OpenSSL 1.1.1": {"8b4744 c3", 0x44, true},
		"OpenSSL 3.0":   {"8b4744 31ff c3", 0x44, true},
		"OpenSSL 3.5": {"f30f1efa 4885ff 7427 8b07 85c0 750f 8b8784000000 31ff c3 0f1f840000000000" +
			"2580000000 7511 31ff c3 660f1f440000 31c0 31ff c3 0f1f00 e9c3b50300", 0x84, true},
		"of two fields":          {"8b4744 c3 8b4748 c3", 0, false},
		"another's field":        {"8b4644 c3", 0, false},
		"a field and then more":  {"8b4744 83e001 c3", 0, false},
		"an address":             {"488b4744 c3", 0, false},
		"what a function gave":   {"e800000000 c3", 0, false},
		"no end":                 {"8b4744", 0, false},
		"nothing at all":         {"", 0, false},
		"a field that is masked": {"8b4744 2580000000 c3", 0, false},
	} {
		code, err := hex.DecodeString(strings.ReplaceAll(v.code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if offset, ok := returnedField(code); ok != v.ok || ok && offset != v.offset {
			t.Errorf("%s: %#x, %v, want %#x, %v", name, offset, ok, v.offset, v.ok)
		}
	}
}
