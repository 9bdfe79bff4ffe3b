package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/tollwire/tollwire/probes/signature"
)

// assembly writes in which published versions each library's signatures are known to
// match, and whether any of a variant's was seen to work.
func assembly(b *bytes.Buffer, set signature.Set) {
	b.WriteString(`
## TLS that is inside and stripped

Read at the library's assembly ([cipher-tap.md](cipher-tap.md)). The signatures of each build match in these:

| library | build | for | matches in | run, of its variants | never run |
|---|---|---|---|---|---|
`)
	type build struct{ library, name, arch string }
	var builds []build
	of := make(map[build]signature.Set)
	for _, s := range set {
		k := build{s.Library, s.Build, s.Arch}
		if of[k] == nil {
			builds = append(builds, k)
		}
		of[k] = append(of[k], s)
	}
	for _, k := range builds {
		var run, never, from []string
		for _, s := range of[k] {
			for _, f := range s.From {
				if !slices.Contains(from, f) {
					from = append(from, f)
				}
			}
			if s.Driven != "" && !slices.Contains(run, s.Variant) {
				run = append(run, s.Variant)
			}
		}
		for _, s := range of[k] {
			if !slices.Contains(run, s.Variant) && !slices.Contains(never, s.Variant) {
				never = append(never, s.Variant)
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", k.library, k.name, k.arch,
			strings.Join(from, ", "), strings.Join(run, ", "), strings.Join(never, ", "))
	}
}
