package names

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestInPath(t *testing.T) {
	for in, want := range map[string]string{
		"gpt-4o":                       "gpt-4o",
		"claude%403":                   "claude@3",
		"100%":                         "100%", // not encoded
		"%FF":                          "\uFFFD",
		"\xff":                         "\uFFFD",
		"%E4%BD%A0":                    "你",
		strings.Repeat("a", 1000):      strings.Repeat("a", Max),
		strings.Repeat("%E4%BD%A0", 9): strings.Repeat("你", 9),
		strings.Repeat("你", 1000):      strings.Repeat("你", Max/3),
		strings.Repeat("\xffa", 600):   strings.Repeat("\uFFFDa", Max/4),
	} {
		if got := InPath(in); got != want {
			t.Errorf("%.20q: %d bytes, %.40q", in, len(got), got)
		}
	}
}

func FuzzInPath(f *testing.F) {
	f.Add("%FF", 3)
	f.Add("你好", 4)
	f.Fuzz(func(t *testing.T, s string, max int) {
		for _, got := range []string{InPath(s), Cut(s, max&0xff)} {
			if !utf8.ValidString(got) || len(got) > Max {
				t.Fatalf("%q", got)
			}
		}
		if got := Cut(s, max&0xff); len(got) > max&0xff {
			t.Fatalf("%q is longer than %d", got, max&0xff)
		}
		if utf8.ValidString(s) && len(s) <= Max && Of(s) != s {
			t.Fatalf("%q became %q", s, Of(s))
		}
	})
}
