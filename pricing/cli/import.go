// Package cli is what `tollwire price` and `tollwire prices` do, apart from flags:
// lines in and out, and books read, compared, checked and written.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tollwire/tollwire/pricing"
	"github.com/tollwire/tollwire/pricing/genai"
)

// maxImport bounds what is read from a file or URL, in bytes.
const maxImport = 64 << 20

// ImportConfig says what to import.
type ImportConfig struct {
	Kind string    // "genai-prices"
	From string    // a file, "-" for stdin, or an http(s) URL
	Date time.Time // the day of the data
	Name string    // what the book says of its source; "" for From
}

// Import writes the book to out and the report of what was not carried over to
// report. The book is checked: what Import writes, Load reads.
func Import(ctx context.Context, c ImportConfig, out, report io.Writer) error {
	if c.Kind != "genai-prices" {
		return fmt.Errorf("import %q: the kinds are: genai-prices", c.Kind)
	}
	data, err := fetch(ctx, c.From)
	if err != nil {
		return err
	}
	if c.Name == "" {
		c.Name = c.From
	}
	book, rep, err := genai.Import(data, genai.Options{Date: c.Date, Source: c.Name})
	if err != nil {
		return err
	}
	if _, err := pricing.Parse(pricing.Source{Name: "imported book", Data: book}); err != nil {
		return fmt.Errorf("check the imported book: %w", err)
	}
	if _, err := rep.WriteTo(report); err != nil {
		return err
	}
	_, err = out.Write(book)
	return err
}

func fetch(ctx context.Context, from string) ([]byte, error) {
	var r io.Reader
	switch {
	case from == "-":
		r = os.Stdin
	case strings.HasPrefix(from, "https://"), strings.HasPrefix(from, "http://"):
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
		if err != nil {
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, fmt.Errorf("fetch prices: %w", err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("fetch prices: %s: %s", from, res.Status)
		}
		r = res.Body
	default:
		f, err := os.Open(from)
		if err != nil {
			return nil, fmt.Errorf("open prices: %w", err)
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	if err != nil {
		return nil, fmt.Errorf("read prices: %w", err)
	}
	if len(data) > maxImport {
		return nil, errors.New("read prices: too large")
	}
	return data, nil
}
