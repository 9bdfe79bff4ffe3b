package gemini

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
)

var families = []string{"gemini", "vertex", "local", "gemini-embeddings", "vertex-embeddings", "vertex-predict"}

func TestRecordings(t *testing.T) {
	answertest.Run(t, Vendor{}, nil, families...)
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, Vendor{}, 4, families...)
}
