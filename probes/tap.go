package probes

import (
	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/flow"
)

// tap reads one TLS implementation: its programs, and how a file that holds it is told.
type tap struct {
	source flow.Source
	load   func() (*ebpf.CollectionSpec, error)
	// find returns where in a file the programs belong; errNoTarget when the file is
	// none of this tap's business, another error when it is but cannot be tapped. It is
	// nil where finding takes long: the file is left to the background.
	find func(f *elfFile) (*target, error)
}

// tlsTaps are the taps of files, in the order in which a file is offered to them: the
// first that knows it has it. Adding a TLS library is one line here.
var tlsTaps = []tap{
	{flow.SourceGoTLS, loadGotls, findGo},
	{flow.SourceOpenSSL, loadOpenssl, findOpenSSL},
	{flow.SourceGnuTLS, loadGnutls, findGnuTLS},
	{flow.SourceNSS, loadNss, findNSS},
	{flow.SourceAEADBoringSSL, loadCipherTap, nil},
}
