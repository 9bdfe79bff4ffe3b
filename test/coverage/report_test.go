package main

import (
	"strings"
	"testing"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

// TestVerdict: what is not as it must be is said.
func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		without, with []string // what it printed
		sources       []string
		want          string
	}{
		"as it must be":                {[]string{"one", "one"}, []string{"one"}, []string{"gnutls"}, ""},
		"another library's tap":        {[]string{"one", "one"}, []string{"one"}, []string{"gnutls", "openssl"}, "seen by openssl"},
		"other bytes, as many":         {[]string{"one", "one"}, []string{"two"}, []string{"gnutls"}, "behaves differently"},
		"other bytes each time":        {[]string{"one", "two"}, []string{"six"}, []string{"gnutls"}, ""},
		"as many bytes, now fewer":     {[]string{"one", "two"}, []string{"on"}, []string{"gnutls"}, "behaves differently"},
		"another number of them, ever": {[]string{"one", "three"}, []string{"on"}, []string{"gnutls"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &row{ready: &ready{program: &program{name: "wget", library: []string{"gnutls"}}}, sources: c.sources}
			for i, all := range [][]string{c.without, c.with} {
				for _, said := range all {
					r.runs[i] = append(r.runs[i], run{said: said, took: 1, calls: 1})
				}
			}
			r.pairs = []ledgercheck.Pair{{Entry: &sim.Entry{}, Record: &ledgercheck.Record{}}}
			bad, _ := verdict([]*row{r})
			if got := strings.Join(bad, "; "); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
