package gemini

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
)

var families = []string{"gemini", "vertex", "local", "gemini-embeddings", "vertex-embeddings", "vertex-predict"}

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(content.Config{}), nil, families...)
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(content.Config{}), 4, families...)
}

func FuzzDecode(f *testing.F) {
	answertest.Fuzz(f, New(content.Config{}), families...)
}
