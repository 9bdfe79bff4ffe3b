package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/tollwire/tollwire/probes/signature"
)

// TestAssembly: docs/coverage.md lists the signatures that there are.
func TestAssembly(t *testing.T) {
	set, err := signature.Published()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	assembly(&b, set)
	page, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(page, b.Bytes()) {
		t.Errorf("docs/coverage.md does not end in this; run make coverage, or put it there:\n%s", &b)
	}
}
