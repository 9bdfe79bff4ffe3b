// Conformance decodes the recorded corpora and prints what is not as expected. With
// -cuts it ends every answer too early instead, at every byte.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/tollwire/tollwire/decoder/conformance"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
)

func main() {
	cuts := flag.Bool("cuts", false, "cut every answer at every byte")
	flag.Parse()
	dir, err := conformance.Find()
	if err == nil {
		if *cuts {
			err = cut(dir)
		} else {
			err = compare(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func compare(dir string) error {
	report, err := conformance.Run(vendors.All(content.Config{}), dir)
	if err != nil {
		return err
	}
	return report.Write(os.Stdout)
}

func cut(dir string) error {
	next := time.Now()
	report, err := conformance.Cuts(dir, func(r conformance.CutReport) {
		if time.Now().After(next) {
			fmt.Fprintf(os.Stderr, "%d answers, %d bytes, %d cuts decoded, %d wrong\n", r.Answers, r.Bytes, r.Decoded, len(r.Wrong))
			next = time.Now().Add(30 * time.Second)
		}
	})
	if err != nil {
		return err
	}
	for _, w := range report.Wrong[:min(len(report.Wrong), 100)] {
		fmt.Println(w)
	}
	fmt.Printf("cuts: %d answers at each of %d bytes, %d decoded, %d of them exact all the same, %d wrong\n",
		report.Answers, report.Bytes, report.Decoded, report.Exact, len(report.Wrong))
	if len(report.Wrong) > 0 {
		return fmt.Errorf("%d cuts give a wrong number that is called exact", len(report.Wrong))
	}
	return nil
}
