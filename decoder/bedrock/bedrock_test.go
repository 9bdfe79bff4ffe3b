package bedrock

import (
	"testing"

	"github.com/tollwire/tollwire/decoder/answer/answertest"
	"github.com/tollwire/tollwire/decoder/content"
)

var families = []string{"bedrock-converse", "bedrock-invoke"}

func TestRecordings(t *testing.T) {
	answertest.Run(t, New(content.Config{}), nil, families...)
}

func TestCutsAreNeverExact(t *testing.T) {
	answertest.Cuts(t, New(content.Config{}), 10, families...)
}
