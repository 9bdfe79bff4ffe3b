package bedrock

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

// isGuardrail recognises /guardrail/ID/version/VERSION/apply
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ApplyGuardrail.html).
func isGuardrail(path string) bool {
	return strings.Contains(path, "/guardrail/") && strings.Contains(path, "/version/") && strings.HasSuffix(path, "/apply")
}

// guardrail decodes a check of a text without a model. It is billed by the text units of
// each policy, which are neither tokens nor any unit of a record, so its usage is missing.
// It was built from the documentation, not from recordings.
type guardrail struct {
	base
	action string
}

// Body implements exchange.Decoder.
func (d *guardrail) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	for key := range s.Object {
		if string(key) == "action" {
			s.Into(&d.action)
		}
	}
	return s.End()
}

// Event implements exchange.Decoder.
func (d *guardrail) Event(*exchange.Event) error { return nil }

// End implements exchange.Decoder.
func (d *guardrail) End(error) {
	d.c.Completeness = llm.Missing
	if d.action == "" {
		return
	}
	d.c.FinishReasons = []string{d.action}
	if d.action == "GUARDRAIL_INTERVENED" && !d.v.cfg.NoQuality {
		d.c.Quality = []string{content.Filtered}
	}
}
