package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// guardTable writes the table again when somebody deletes it: reloading a firewall often empties everything there is. The kernel tells of
// every single change of every table, and ends each transaction with the number of the new generation; only that is let through to here,
// so that large changes cannot fill the socket.
func (n *Network) guardTable(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watch the nft table: %w", err)
	}
	defer conn.Close()
	newGeneration := binaryutil.NativeEndian.PutUint16(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN)
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // the message's type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(newGeneration)), SkipFalse: 1},
		bpf.RetConstant{Val: math.MaxUint32},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = errors.Join(conn.SetBPF(filter), conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	}
	if err != nil {
		return fmt.Errorf("watch the nft table: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	events := n.cfg.Client.Recorder("skiff-network")
	for {
		_, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		// A full socket means that something changed, like a message.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch the nft table: %w", err)
		}
		deleted, err := n.rules.Restore()
		switch {
		case err != nil:
			n.cfg.Log.Error("the nft table was deleted, and could not be written again", "err", err)
		case deleted:
			node := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.cfg.NodeName, UID: types.UID(n.cfg.NodeName)}
			events.Eventf(node, corev1.EventTypeWarning, "NetworkTableRestored",
				"Somebody deleted the nft table %s, which carries services and policies; it was written again", n.cfg.Cluster)
		}
	}
}
