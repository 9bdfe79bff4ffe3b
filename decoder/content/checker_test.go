package content

import (
	"encoding/json"
	"strings"
	"testing"
)

func FuzzChecker(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"x\né\"",{}],"b":[]}`, ` 0 `, `01`, `-`, `1.`, `1e`, `[1,]`, `{"a":}`,
		`{,}`, `{"a" 1}`, `tru`, `"\u12g4"`, "\"\x01\"", "```json\n{}\n```", `{} {}`, `]`, `[}`, "", " ", `"\x"`,
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var whole, split Checker
		whole.Write(b)
		if at < 0 || at > len(b) {
			at = 0
		}
		split.Write(b[:at])
		split.Write(b[at:])
		if split.Result() != whole.Result() {
			t.Fatalf("%q split at %d: %d, whole %d", b, at, split.Result(), whole.Result())
		}
		if strings.TrimLeft(string(b), " \t\r\n") == "" || whole.Result() == Unknown {
			return
		}
		if want := json.Valid(b); want != (whole.Result() == Valid) {
			t.Fatalf("%q: valid is %v, result %d", b, want, whole.Result())
		}
	})
}

func TestCheckerGivesUpAtDepth(t *testing.T) {
	var c Checker
	c.Write([]byte(strings.Repeat("[", maxNesting+1)))
	if c.Result() != Unknown {
		t.Fatal(c.Result())
	}
}
