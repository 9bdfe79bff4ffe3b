// Conformance decodes the recorded corpora and prints what is not as expected.
package main

import (
	"fmt"
	"os"

	"github.com/tollwire/tollwire/decoder/conformance"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
)

func main() {
	dir, err := conformance.Find()
	if err == nil {
		var report *conformance.Report
		if report, err = conformance.Run(vendors.All(content.Config{}), dir); err == nil {
			err = report.Write(os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}
