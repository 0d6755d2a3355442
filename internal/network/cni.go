package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	cni "github.com/containernetworking/cni/pkg/types/100"

	"skiff.dev/skiff/internal/network/cniwire"
	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// podCIDRPatience is how long the first pods wait for the node to be given its addresses.
const podCIDRPatience = 10 * time.Second

// cniConfig is what the runtime sends along with a command.
type cniConfig struct {
	CNIVersion    string `json:"cniVersion"`
	RuntimeConfig struct {
		PortMappings []struct {
			HostPort      int    `json:"hostPort"`
			ContainerPort int    `json:"containerPort"`
			Protocol      string `json:"protocol"`
			HostIP        string `json:"hostIP"`
		} `json:"portMappings"`
	} `json:"runtimeConfig"`
	Valid *[]struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	} `json:"cni.dev/valid-attachments"`
}

func (c *cniConfig) hostPorts() (out []proxy.HostPort) {
	for _, m := range c.RuntimeConfig.PortMappings {
		if m.HostPort <= 0 || m.HostPort > 65535 || m.ContainerPort <= 0 || m.ContainerPort > 65535 {
			continue
		}
		p := proxy.HostPort{Protocol: proxy.TCP, HostPort: uint16(m.HostPort), Container: uint16(m.ContainerPort)}
		switch strings.ToLower(m.Protocol) {
		case "udp":
			p.Protocol = proxy.UDP
		case "sctp":
			p.Protocol = proxy.SCTP
		}
		if m.HostIP != "" {
			a, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				continue // the API refuses it
			}
			p.HostIP = a
		}
		out = append(out, p)
	}
	return out
}

// conflist is written for the container runtime: it starts the plug-in with it.
func conflist(cluster, socket string) []byte {
	out, _ := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "cniVersions": cniwire.Versions[1:], "name": cluster,
		"plugins": []any{map[string]any{"type": "skiff-cni", "socket": socket, "capabilities": map[string]bool{"portMappings": true}}},
	}, "", "  ")
	return append(out, '\n')
}

func (c *Config) conflistPath() string {
	return filepath.Join(c.CNIConfDir, "10-"+c.Cluster+".conflist")
}
func (c *Config) socketPath() string { return filepath.Join(c.RunDir, "cni.sock") }

// writeConflist tells the runtime that pods can be connected. It appears whole or not at all.
func (n *Network) writeConflist() error {
	path := n.cfg.conflistPath()
	// The draft lies beside the folder, for the runtime reads all of the folder whenever a file in it is written or renamed. That something
	// new appeared it does not notice; so the file is written over with what it holds.
	draft := filepath.Join(filepath.Dir(n.cfg.CNIConfDir), filepath.Base(path)+".new")
	content := conflist(n.cfg.Cluster, n.cfg.socketPath())
	err := os.MkdirAll(n.cfg.CNIConfDir, 0o755)
	if err == nil {
		err = os.WriteFile(draft, content, 0o644)
	}
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err == nil {
		err = writeOver(path, content)
	}
	if err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

func writeOver(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	return errors.Join(err, f.Close())
}

// listen opens the plug-in's socket; one left by an earlier run is replaced.
func (n *Network) listen() (net.Listener, error) {
	path := n.cfg.socketPath()
	if err := os.MkdirAll(n.cfg.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("open the CNI socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the CNI socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the CNI socket: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

// answer serves one plug-in's command.
func (n *Network) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	var req cniwire.Request
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewDecoder(conn).Decode(&req); err != nil {
		n.cfg.Log.Warn("a CNI request could not be read", "err", err)
		return
	}
	reply := n.serve(ctx, &req)
	if reply.Error != nil && req.Command != "STATUS" { // what STATUS finds is its answer; the node's conditions show it
		n.cfg.Log.Warn("CNI command failed", "command", req.Command, "container", req.ContainerID, "err", reply.Error.Msg)
	}
	if err := json.NewEncoder(conn).Encode(reply); err != nil {
		n.cfg.Log.Warn("a CNI reply could not be sent", "command", req.Command, "container", req.ContainerID, "err", err)
	}
}

func (n *Network) serve(ctx context.Context, req *cniwire.Request) (reply cniwire.Reply) {
	var conf cniConfig
	refuse := func(code uint, err error) cniwire.Reply {
		return cniwire.Reply{Error: &cniwire.Error{CNIVersion: conf.CNIVersion, Code: code, Msg: err.Error()}}
	}
	if err := json.Unmarshal(req.Config, &conf); err != nil {
		return refuse(cniwire.CodeDecode, fmt.Errorf("the configuration is no JSON: %w", err))
	}
	if !slices.Contains(cniwire.Versions, conf.CNIVersion) {
		return refuse(cniwire.CodeVersion, fmt.Errorf("cniVersion %q is not one of %s", conf.CNIVersion, strings.Join(cniwire.Versions, ", ")))
	}
	switch req.Command {
	case "STATUS":
		if !n.node.known() {
			return refuse(cniwire.CodeNotAvailable, errNoPodCIDR)
		}
		return reply
	case "GC":
		if err := n.collect(&conf); err != nil {
			return refuse(cniwire.CodeFailed, err)
		}
		return reply
	}
	if !named(req.ContainerID) || !named(req.IfName) {
		return refuse(cniwire.CodeEnvironment, fmt.Errorf("CNI_CONTAINERID %q or CNI_IFNAME %q is no name", req.ContainerID, req.IfName))
	}
	switch req.Command {
	case "ADD":
		result, err := n.add(ctx, req, &conf)
		if errors.Is(err, errNoPodCIDR) {
			return refuse(cniwire.CodeTryLater, err)
		} else if err != nil {
			return refuse(cniwire.CodeFailed, err)
		}
		reply.Result = result
	case "DEL":
		if err := n.del(req.ContainerID + "-" + req.IfName); err != nil {
			return refuse(cniwire.CodeFailed, err)
		}
	case "CHECK":
		if err := n.check(req); err != nil {
			return refuse(cniwire.CodeFailed, err)
		}
	default:
		return refuse(cniwire.CodeEnvironment, fmt.Errorf("CNI_COMMAND %q is not known", req.Command))
	}
	return reply
}

var errNoPodCIDR = errors.New("this node has not been given pod addresses yet (Node.spec.podCIDRs is empty); " +
	"the controllers do that once the node is registered")

// add connects a container. Repeating it gives the same addresses.
func (n *Network) add(ctx context.Context, req *cniwire.Request, conf *cniConfig) (json.RawMessage, error) {
	if err := n.node.wait(ctx, podCIDRPatience); err != nil {
		return nil, err
	}
	r, err := n.pool.reserve(reservation{ContainerID: req.ContainerID, IfName: req.IfName, Netns: req.Netns, Pod: podOf(req.Args), Ports: conf.hostPorts()})
	if err != nil {
		return nil, err
	}
	l := podLink{cluster: n.cfg.Cluster, host: linkName(n.cfg.Cluster, r.id()), name: r.IfName, netns: r.Netns, mtu: n.mtu}
	for i, a := range r.Addrs {
		l.ends = append(l.ends, ends{a, gatewayOf(n.node.pods[i])})
	}
	// Policies come first: the pod must not send or receive a packet that they forbid.
	err = n.rules.Change(func(_ *proxy.Table, p *policy.Table) { setIsolation(p, r) })
	var hostMAC, podMAC net.HardwareAddr
	if err == nil {
		hostMAC, podMAC, err = l.connect()
	}
	if err == nil && len(r.Ports) > 0 {
		err = n.rules.Change(func(t *proxy.Table, p *policy.Table) { setPod(t, p, r) })
	}
	if err != nil {
		return nil, errors.Join(err, n.del(r.id()))
	}
	inside := 1
	result := &cni.Result{
		CNIVersion: cni.ImplementedSpecVersion,
		Interfaces: []*cni.Interface{{Name: l.host, Mac: hostMAC.String()}, {Name: r.IfName, Mac: podMAC.String(), Sandbox: r.Netns}},
	}
	for _, e := range l.ends {
		result.IPs = append(result.IPs, &cni.IPConfig{Interface: &inside, Address: *single(e.pod), Gateway: e.gateway.AsSlice()})
		result.Routes = append(result.Routes, &cnitypes.Route{Dst: *network(familyOf(e.pod).whole()), GW: e.gateway.AsSlice()})
	}
	old, err := result.GetAsVersion(conf.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("write the result as version %s: %w", conf.CNIVersion, err)
	}
	return json.Marshal(old)
}

// podOf reads the arguments that runtimes send along: whose container it is. Zero for those that do not say.
func podOf(args string) (key policy.Key) {
	for arg := range strings.SplitSeq(args, ";") {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "K8S_POD_NAMESPACE":
			key.Namespace = value
		case "K8S_POD_NAME":
			key.Name = value
		}
	}
	return key
}

func setIsolation(p *policy.Table, r *reservation) {
	if r.Pod.Name != "" {
		p.SetLocal(r.Pod, r.Addrs...)
	}
}

// setPod puts what is known of a pod's link into the tables: its addresses, and the host's ports that lead to it.
func setPod(t *proxy.Table, p *policy.Table, r *reservation) {
	setIsolation(p, r)
	t.Set("pod/"+r.id(), proxy.HostPorts(r.Addrs, r.Ports))
}

// del takes a container's connection away. The addresses come last: as long as anything leads to one, nobody else may have it.
func (n *Network) del(id string) error {
	if err := deleteLink(linkName(n.cfg.Cluster, id)); err != nil {
		return err
	}
	if r := n.pool.get(id); r != nil {
		if err := n.rules.Change(func(t *proxy.Table, p *policy.Table) {
			t.Set("pod/"+id, proxy.Part{})
			p.SetLocal(r.Pod)
		}); err != nil {
			return err
		}
		if err := n.forgetter.forget(r.Addrs); err != nil {
			n.cfg.Log.Warn("clients may be led to a pod that is gone", "err", err)
		}
	}
	return n.pool.release(id)
}

func (n *Network) check(req *cniwire.Request) error {
	r := n.pool.get(req.ContainerID + "-" + req.IfName)
	if r == nil {
		return fmt.Errorf("container %s has no address here", req.ContainerID)
	}
	if _, err := net.InterfaceByName(linkName(n.cfg.Cluster, r.id())); err != nil {
		return fmt.Errorf("the link of container %s: %w", req.ContainerID, err)
	}
	return nil
}

// collect releases what the runtime no longer knows.
func (n *Network) collect(conf *cniConfig) error {
	if conf.Valid == nil {
		return errors.New("cni.dev/valid-attachments is missing: it says what must stay")
	}
	valid := map[string]bool{}
	for _, v := range *conf.Valid {
		valid[v.ContainerID+"-"+v.IfName] = true
	}
	var errs []error
	for _, r := range n.pool.all() {
		if !valid[r.id()] {
			errs = append(errs, n.del(r.id()))
		}
	}
	return errors.Join(errs...)
}
