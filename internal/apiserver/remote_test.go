package apiserver_test

import (
	"log/slog"
	"testing"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/client/clienttest"
)

// The client of another process speaks to a real server; what it is to keep is the same as within the process.
func TestRemoteKeepsTheContract(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Client {
		c, err := client.Remote(start(t).config(), client.RemoteOptions{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return c
	})
}
