// Package conformance holds the decoder against recorded provider traffic: every
// entry of the corpora goes as HTTP bytes through stream, framing and vendor, and
// what comes out is compared with what an independent program expected.
package conformance

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/tollwire/tollwire/har"
)

// Expected is a line of expected.jsonl.gz; the corpora's README explains the fields.
type Expected struct {
	ID            string             `json:"id"`
	Source        string             `json:"source"`
	Family        string             `json:"family"`
	Operation     string             `json:"operation"`
	Framing       string             `json:"framing"`
	Provider      *string            `json:"provider"`
	RequestModel  *string            `json:"request_model"`
	ResponseModel *string            `json:"response_model"`
	ResponseID    *string            `json:"response_id"`
	Stream        bool               `json:"stream"`
	FinishReasons []any              `json:"finish_reasons"` // words; numbers at some gateways
	Usage         map[string]float64 `json:"usage"`
	UsagePresent  bool               `json:"usage_present"`
	UsageSure     bool               `json:"usage_sure"`
	Error         bool               `json:"error"`
	StatedCost    *string            `json:"stated_cost_usd"`
	Doubts        []string           `json:"doubts"`
}

// Case is a recorded exchange and what is expected of it.
type Case struct {
	Entry *har.Entry
	Want  *Expected
}

// Find returns the corpora's folder, ../shared/corpora beside the repository that the
// working directory is in.
func Find() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	dir = filepath.Join(dir, "..", "shared", "corpora")
	if _, err := os.Stat(filepath.Join(dir, "expected.jsonl.gz")); err != nil {
		return "", fmt.Errorf("the recorded corpora are not there: %w", err)
	}
	return dir, nil
}

// Load calls f with every case of the corpora in dir, in the order of files.
func Load(dir string, f func(Case) error) error {
	want, err := expected(filepath.Join(dir, "expected.jsonl.gz"))
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.har.gz"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range files {
		r, err := har.Open(file)
		if err != nil {
			return err
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err == nil {
				w := want[e.ID]
				if w == nil {
					err = fmt.Errorf("nothing is expected of %s", e.ID)
				} else {
					delete(want, e.ID)
					err = f(Case{e, w})
				}
			}
			if err != nil {
				r.Close()
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		r.Close()
	}
	for id := range want {
		return fmt.Errorf("%d expectations without a recording, %s for one", len(want), id)
	}
	return nil
}

func expected(path string) (map[string]*Expected, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	d := json.NewDecoder(z)
	all := make(map[string]*Expected)
	for {
		e := new(Expected)
		switch err := d.Decode(e); {
		case err == io.EOF:
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all[e.ID] = e
	}
}
