package network

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"time"

	"skiff.dev/skiff/internal/network/cniwire"
)

// StandIn answers the plug-in while no agent runs and a cluster is being removed: somebody else's runtime ends a pod only when its plug-in has
// disconnected it. Nothing is done to answer, for Remove takes away all there is.
func StandIn(cfg Config) (io.Closer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{cfg: cfg}
	l, err := n.listen()
	if err != nil {
		return nil, err
	}
	if err := n.writeConflist(); err != nil { // it may be gone since an earlier removal that did not get through
		l.Close()
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agree(conn)
		}
	}()
	return l, nil
}

func agree(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var req cniwire.Request
	if err := json.NewDecoder(conn).Decode(&req); err != nil {
		return // the plug-in is gone
	}
	reply := cniwire.Reply{}
	if req.Command == "ADD" {
		reply.Error = &cniwire.Error{CNIVersion: cniwire.Versions[0], Code: cniwire.CodeTryLater, Msg: "the cluster is being removed"}
	}
	_ = json.NewEncoder(conn).Encode(reply) // whoever does not hear it asks again
}
