package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// line is one question of `tollwire price`. All but id, provider, model, at and
// usage may be absent.
type line struct {
	ID           string             `json:"id"`
	Provider     string             `json:"provider"`
	Model        string             `json:"model"`
	RequestModel string             `json:"request_model"`
	At           time.Time          `json:"at"`
	End          time.Time          `json:"end"`
	Usage        map[string]float64 `json:"usage"`
	ServiceTier  string             `json:"service_tier"`
	Region       string             `json:"region"`
	Host         string             `json:"host"`
	Path         string             `json:"path"`

	SearchContextSize string         `json:"search_context_size"`
	ImageSize         string         `json:"image_size"`
	ImageQuality      string         `json:"image_quality"`
	ToolRequests      map[string]int `json:"tool_requests"`

	StatedCost       string `json:"stated_cost"`
	StatedCostSource string `json:"stated_cost_source"`
}

// answer is what it is answered with: usd or unpriced.
type answer struct {
	ID       string `json:"id"`
	USD      string `json:"usd,omitempty"`
	Unpriced string `json:"unpriced,omitempty"`
}

// maxLine bounds one line of input, in bytes.
const maxLine = 1 << 20

// Price answers every line of in with one line of out, in order. A line that is no
// question ends it with an error that names the line.
func Price(b *pricing.Book, in io.Reader, out io.Writer) error {
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	n := 0
	for scan.Scan() {
		n++
		if len(scan.Bytes()) == 0 {
			continue
		}
		q, id, err := question(scan.Bytes())
		if err != nil {
			return errors.Join(fmt.Errorf("line %d: %w", n, err), w.Flush())
		}
		p := b.Price(q)
		a := answer{ID: id, Unpriced: p.Unpriced}
		if p.Priced() {
			a.USD = p.USD.String()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return errors.Join(fmt.Errorf("line %d: %w", n+1, err), w.Flush())
	}
	return w.Flush()
}

func question(data []byte) (pricing.Query, string, error) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return pricing.Query{}, "", err
	}
	usage := new(llm.Usage)
	for name, n := range l.Usage {
		class, ok := llm.ClassOf(name)
		if !ok {
			return pricing.Query{}, "", fmt.Errorf("usage: unknown class %q", name)
		}
		if !usage.Set(class, n) {
			return pricing.Query{}, "", fmt.Errorf("usage: %s cannot be %v", name, n)
		}
	}
	return pricing.Query{
		Provider: l.Provider, Model: l.Model, RequestModel: l.RequestModel, Host: l.Host, Path: l.Path,
		ServiceTier: l.ServiceTier, Region: l.Region, At: l.At, End: l.End,
		Usage: usage,
		Hints: llm.CostHints{
			SearchContextSize: l.SearchContextSize, ImageSize: l.ImageSize,
			ImageQuality: l.ImageQuality, ToolRequests: l.ToolRequests,
		},
		StatedCost: l.StatedCost, StatedCostSource: l.StatedCostSource,
	}, l.ID, nil
}
