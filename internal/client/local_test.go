package client_test

import (
	"log/slog"
	"testing"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/client/clienttest"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestLocalKeepsTheContract(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Client {
		r := registrytest.Start(t, nil, nil)
		return client.Local(r.Registry, registrytest.Admin, slog.New(slog.DiscardHandler))
	})
}
