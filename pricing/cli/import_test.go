package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// embeddedDate is the day of the commit that the embedded book was imported from.
var embeddedDate = time.Date(2026, 8, 21, 0, 0, 0, 0, time.UTC)

// TestEmbeddedBookIsTheImport holds the embedded book against its source. With
// UPDATE=1 it writes it anew, as `make prices` does.
func TestEmbeddedBookIsTheImport(t *testing.T) {
	var book, report bytes.Buffer
	err := Import(context.Background(), ImportConfig{
		Kind: "genai-prices", From: filepath.Join(corpora(t), "genai-prices", "data.json"),
		Date: embeddedDate, Name: "pydantic/genai-prices 47df840a (MIT)",
	}, &book, &report)
	if err != nil {
		t.Fatal(err)
	}
	const file = "../book/default.yaml"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, book.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, book.Bytes()) {
		t.Errorf("%s is not what the import writes: run make prices", file)
	}
	t.Log(report.String())
}
