// Package config holds Skiff's settings: one struct, filled once, checked once, read-only afterwards.
//
// Every field has a key. The same key is a flag (--data-dir), a line of the YAML file given with --config (data-dir:) and an
// environment variable (SKIFF_DATA_DIR); a flag beats a variable, a variable the file, the file the default. The field's help tag is what
// --help and the reference documentation show.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/loadbalancer"
	"skiff.dev/skiff/internal/api/shutdown"
	"skiff.dev/skiff/internal/api/threshold"
)

// Config is what a server and its agent need to know. Its zero value is not usable; start from Default.
type Config struct {
	DataDir     string `key:"data-dir" help:"Folder that holds everything the cluster keeps"`
	ClusterName string `key:"cluster-name" help:"Name that links, tables and cgroups on this host carry, 11 letters at most (default \"skiff\", or one made from the data dir)"`
	LogLevel    string `key:"log-level" help:"How much to log: debug, info, warn or error"`
	LogFormat   string `key:"log-format" help:"How to log: text or json"`

	DetectMutation bool `key:"detect-mutation" help:"Look for parts that change shared objects, and stop when one did; for tests, it costs time"`

	Listen           string   `key:"listen" help:"Address and port of the API server"`
	AdvertiseAddress string   `key:"advertise-address" help:"Address under which pods and other nodes reach the API server (default: the listen address, or the node's)"`
	TLSSAN           []string `key:"tls-san" help:"Further names or addresses for the API server's certificate"`

	EtcdEndpoints []string `key:"etcd-endpoints" help:"Use this etcd instead of the embedded one"`
	EtcdCAFile    string   `key:"etcd-cafile" help:"Authority of the external etcd"`
	EtcdCertFile  string   `key:"etcd-certfile" help:"Client certificate for the external etcd"`
	EtcdKeyFile   string   `key:"etcd-keyfile" help:"Client key for the external etcd"`

	RuntimeConfig []string `key:"runtime-config" help:"API group-versions to serve besides, each NAME=true; there is scheduling.k8s.io/v1beta1: Workload, PodGroup and pods that are scheduled together"`

	EventTTL string `key:"event-ttl" help:"How long an Event is kept after it was last written, 10s at least; 0 for ever"`

	EncryptionProviderConfig string `key:"encryption-provider-config" help:"File with the EncryptionConfiguration that says how values are encrypted in etcd (default: Secrets, with a key of Skiff's own)"`

	TokenAuthFile               string   `key:"token-auth-file" help:"File with static tokens, a line each: token,user,uid,\"group,…\""`
	AuthenticationConfig        string   `key:"authentication-config" help:"File with the AuthenticationConfiguration: issuers of identity tokens (OIDC), and where anonymous requests are allowed"`
	AuthenticationWebhookConfig string   `key:"authentication-token-webhook-config-file" help:"Kubeconfig of a service that answers TokenReviews for tokens that nobody else knows"`
	OIDCIssuer                  string   `key:"oidc-issuer-url" help:"Issuer of identity tokens, https://…"`
	OIDCClientID                string   `key:"oidc-client-id" help:"Audience that the issuer's tokens must have"`
	OIDCUsernameClaim           string   `key:"oidc-username-claim" help:"Claim that is the user's name"`
	OIDCUsernamePrefix          string   `key:"oidc-username-prefix" help:"What is put before the issuer's user names; - for nothing (default: the issuer's URL and #, nothing for email)"`
	OIDCGroupsClaim             string   `key:"oidc-groups-claim" help:"Claim that lists the user's groups"`
	OIDCGroupsPrefix            string   `key:"oidc-groups-prefix" help:"What is put before the issuer's groups"`
	OIDCCAFile                  string   `key:"oidc-ca-file" help:"Authority of the issuer's certificate (default: those of the host)"`
	OIDCRequiredClaims          []string `key:"oidc-required-claim" help:"claim=value that the issuer's tokens must have; may be given several times"`
	OIDCAlgorithms              []string `key:"oidc-signing-algs" help:"Signature algorithms that the issuer's tokens may have"`
	AuthorizationConfig         string   `key:"authorization-config" help:"File with the AuthorizationConfiguration: who is asked, in order (Node, RBAC, Webhook)"`
	AuthorizationWebhookConfig  string   `key:"authorization-webhook-config-file" help:"Kubeconfig of a service that answers SubjectAccessReviews, asked after RBAC"`

	EnableAdmission  []string `key:"enable-admission-plugins" help:"Admission plug-ins to run beside those that are on by default, by upstream's names; their order doesn't matter"`
	DisableAdmission []string `key:"disable-admission-plugins" help:"Admission plug-ins not to run, by upstream's names"`
	AdmissionConfig  string   `key:"admission-control-config-file" help:"File with the AdmissionConfiguration: what is configured of admission plug-ins"`

	AuditPolicyFile    string `key:"audit-policy-file" help:"File with the audit Policy: which requests are recorded, and how much of them (default: none)"`
	AuditLogPath       string `key:"audit-log-path" help:"File that audit events are written to; - for standard output"`
	AuditLogMaxSize    int    `key:"audit-log-maxsize" help:"Megabytes at which the audit log is rotated"`
	AuditLogMaxAge     int    `key:"audit-log-maxage" help:"Days that rotated audit logs are kept; 0 for ever"`
	AuditLogMaxBackups int    `key:"audit-log-maxbackup" help:"Rotated audit logs that are kept; 0 for all"`
	AuditWebhookConfig string `key:"audit-webhook-config-file" help:"Kubeconfig of a service that audit events are sent to"`

	LBPool []string `key:"lb-pool" help:"Addresses for services of type LoadBalancer, announced on the nodes' link (ARP, NDP): CIDRs and ranges such as 192.0.2.10-192.0.2.20 (default: the nodes' own addresses)"`

	PodCIDR          string `key:"pod-cidr" also:"cluster-cidr" help:"Addresses of all pods: a range, or one of each family with a comma between them, the primary first"`
	NodeCIDRMask     int    `key:"node-cidr-mask-size" help:"Size of each node's share of the pod addresses, in a cluster of one family (default: that of the family)"`
	NodeCIDRMaskIPv4 int    `key:"node-cidr-mask-size-ipv4" help:"Size of each node's share of the pods' IPv4 addresses"`
	NodeCIDRMaskIPv6 int    `key:"node-cidr-mask-size-ipv6" help:"Size of each node's share of the pods' IPv6 addresses"`
	ServiceCIDR      string `key:"service-cidr" also:"service-cluster-ip-range" help:"Cluster addresses of services: a range, or one of each family with a comma between them, the primary first"`

	NodePorts     string `key:"service-node-port-range" help:"Ports for services of type NodePort"`
	ClusterDomain string `key:"cluster-domain" help:"Domain of the cluster's DNS names"`
	Controllers   string `key:"controllers" help:"Controllers to run: a comma-separated list of names, * for all, -name to leave one out"`
	NoScheduler   bool   `key:"no-scheduler" help:"Do not run the scheduler"`

	SchedulerConfig string `key:"scheduler-config" help:"File with the KubeSchedulerConfiguration: profiles, plug-ins and their arguments, extenders (default: upstream's default profile)"`
	LeaderElect     bool   `key:"leader-elect" help:"Schedule only while holding the Lease kube-system/kube-scheduler, for several schedulers on one cluster"`

	NoDashboard bool `key:"no-dashboard" help:"Do not serve the web UI at /ui of the API server"`
	NoAgent     bool `key:"no-agent" help:"Run the control plane alone, without a node"`

	Server    string `key:"server" help:"Address of the server to join, such as https://10.0.0.1:6443; for agents"`
	Token     string `key:"token" help:"Token that lets this host join; 'skiff token create' on a server prints one. Needed once"`
	TokenFile string `key:"token-file" help:"File that holds the token"`

	VXLANPort     int  `key:"vxlan-port" help:"UDP port for packets between pods on different nodes; the same on all nodes"`
	DirectRouting bool `key:"direct-routing" help:"Reach the pods of nodes on this node's own link by routes, without vxlan; the same on all nodes"`

	ProxyHealthz string `key:"proxy-healthz-bind-address" help:"Address and port where load balancers outside ask, at /healthz, whether this node should get packets for services; empty for none"`
	ProxyMetrics string `key:"proxy-metrics-bind-address" help:"Address and port of the service proxy's /metrics; empty for none"`

	NodeName              string   `key:"node-name" help:"Name of this node (default: the host's name)"`
	NodeIP                string   `key:"node-ip" help:"Address of this node, or one of each family with a comma between them, the primary first (default: those of the default routes)"`
	KubeletListen         string   `key:"kubelet-listen" help:"Address and port of the kubelet; port 0 picks a free one"`
	MaxPods               int      `key:"max-pods" help:"Pods this node takes at most"`
	PodManifestPath       string   `key:"pod-manifest-path" help:"Folder with manifests of static pods, one pod a file, which this node runs by itself (default: none)"`
	EvictionHard          []string `key:"eviction-hard" help:"What must be left of memory.available, nodefs.available, nodefs.inodesFree and pid.available, or pods are evicted, such as memory.available<200Mi,nodefs.available<5%; 0 for never (default: memory.available<100Mi, a tenth of the disk but 1Gi at most, nodefs.inodesFree<1%, pid.available<2%)"`
	EvictionSoft          []string `key:"eviction-soft" help:"What should be left: when it has not been for the grace period, pods are evicted with time to end, such as memory.available<500Mi (default: none)"`
	EvictionGrace         []string `key:"eviction-soft-grace-period" help:"How long less than that must be left before pods are evicted, for each soft threshold, such as memory.available=1m30s"`
	EvictionMaxTime       int      `key:"eviction-max-pod-grace-period" help:"Seconds that a pod gets at most to end when it is evicted for a soft threshold; negative for what it asks for"`
	EvictionReclaim       []string `key:"eviction-minimum-reclaim" help:"What must be there beyond a threshold before no more pods are evicted for it, such as nodefs.available=500Mi (default: nothing)"`
	EvictionHold          string   `key:"eviction-pressure-transition-period" help:"How long a node tells that it is short of something after it was the last time"`
	EnableSystemLogQuery  bool     `key:"enable-system-log-query" help:"Answer queries for the logs of the host's services, for those who may read nodes/log and nodes/proxy"`
	ShutdownGrace         string   `key:"shutdown-grace-period" help:"How long pods get to end when the host shuts down; systemd-logind holds it up for that long, 0 for not at all"`
	ShutdownGraceCritical string   `key:"shutdown-grace-period-critical-pods" help:"The last part of that, which is for critical pods: they end when the others have"`
	ShutdownGracePriority []string `key:"shutdown-grace-period-by-pod-priority" help:"Instead of both: what pods of a priority and above get, each after those of lower ones, such as 0=1m,1000=20s,2000000000=10s"`
	LogMaxSize            int      `key:"container-log-max-size" help:"Megabytes at which a running container's log is rotated"`
	LogMaxFiles           int      `key:"container-log-max-files" help:"Files that are kept of a running container's log, the live one included"`
	LogKeepHours          int      `key:"log-keep-hours" help:"Hours for which logs are kept after their pod is gone; 0 for not at all"`
	LogKeepSize           int      `key:"log-keep-size" help:"Megabytes that the logs of pods that are gone may take on a node; the oldest go first. They never take more than a tenth of the filesystem"`
	CRIEndpoint           string   `key:"cri-endpoint" help:"Use this CRI socket (unix:///…) instead of the embedded containerd"`
	ResolvConf            string   `key:"resolv-conf" help:"File that names the resolvers for everything outside the cluster"`
}

// Default is the configuration of `skiff up`; `skiff server` listens on every address.
func Default() *Config {
	return &Config{
		DataDir:               "/var/lib/skiff",
		LogLevel:              "info",
		LogFormat:             "text",
		Listen:                "127.0.0.1:6443",
		OIDCUsernameClaim:     "sub",
		EventTTL:              "1h",
		AuditLogMaxSize:       100,
		AuditLogMaxBackups:    10,
		OIDCAlgorithms:        []string{"RS256"},
		PodCIDR:               "10.42.0.0/16",
		NodeCIDRMaskIPv4:      24,
		NodeCIDRMaskIPv6:      64,
		ServiceCIDR:           "10.43.0.0/16",
		NodePorts:             "30000-32767",
		ClusterDomain:         "cluster.local",
		Controllers:           "*",
		VXLANPort:             8472,
		ProxyHealthz:          "0.0.0.0:10256",
		ProxyMetrics:          "127.0.0.1:10249",
		KubeletListen:         "0.0.0.0:10250",
		MaxPods:               110,
		EvictionHold:          "5m",
		ShutdownGrace:         "0s",
		ShutdownGraceCritical: "0s",
		LogMaxSize:            10,
		LogMaxFiles:           5,
		LogKeepHours:          24,
		LogKeepSize:           256,
		ResolvConf:            "/etc/resolv.conf",
	}
}

var clusterName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,9}[a-z0-9])?$`)

// Complete fills what depends on other fields and on the host, then checks everything. Its errors name the key and say what to do.
func (c *Config) Complete() error {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil || c.DataDir == "" || dir == "/" {
		return fmt.Errorf("data-dir: %q is no folder a cluster can have to itself; give one such as /var/lib/skiff", c.DataDir)
	}
	c.DataDir = dir
	if c.ClusterName == "" {
		c.ClusterName = nameFor(c.DataDir)
	}
	if !clusterName.MatchString(c.ClusterName) {
		return fmt.Errorf("cluster-name: %q must be 1 to 11 lower-case letters, digits or dashes, and begin with a letter", c.ClusterName)
	}
	if c.NodeName == "" {
		if c.NodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("node-name: the host has no name (%w); give one", err)
		}
	}
	c.NodeName = strings.ToLower(strings.TrimSpace(c.NodeName))
	if _, err := api.ParseRuntimeConfig(c.RuntimeConfig); err != nil {
		return fmt.Errorf("runtime-config: %w", err)
	}
	if _, err := c.EventLife(); err != nil {
		return err
	}
	for _, check := range []func() error{c.checkLogging, c.checkNetwork, c.checkAddresses, c.checkNode} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// nameFor gives every data dir a name of its own, so that several clusters can live on one host.
func nameFor(dataDir string) string {
	if dataDir == Default().DataDir {
		return "skiff"
	}
	sum := sha256.Sum256([]byte(dataDir))
	return "skiff-" + hex.EncodeToString(sum[:])[:5]
}

func (c *Config) checkLogging() error {
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("log-level: %q is not one of debug, info, warn, error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("log-format: %q is neither text nor json", c.LogFormat)
	}
	return nil
}

func (c *Config) checkNetwork() error {
	pods, services, err := c.checkRanges()
	if err != nil {
		return err
	}
	if err := c.checkPool(pods, services); err != nil {
		return err
	}
	if c.VXLANPort < 1 || c.VXLANPort > 65535 {
		return fmt.Errorf("vxlan-port: %d is no port", c.VXLANPort)
	}
	low, high, ok := strings.Cut(c.NodePorts, "-")
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if !ok || err1 != nil || err2 != nil || from == 0 || from > to {
		return fmt.Errorf("service-node-port-range: %q is no range of ports such as 30000-32767", c.NodePorts)
	}
	return nil
}

func (c *Config) checkPool(pods, services []netip.Prefix) error {
	pool, err := loadbalancer.ParsePool(c.LBPool)
	if err != nil {
		return fmt.Errorf("lb-pool: %w", err)
	}
	for key, ranges := range map[string][]netip.Prefix{"pod-cidr": pods, "service-cidr": services} {
		for _, other := range ranges {
			if part := pool.Overlap(other); part != "" {
				return fmt.Errorf("lb-pool: %s overlaps %s %s; choose addresses of the nodes' link that no host has", part, key, other)
			}
		}
	}
	return nil
}

func (c *Config) checkAddresses() error {
	for key, value := range map[string]string{
		"listen": c.Listen, "kubelet-listen": c.KubeletListen, "proxy-healthz-bind-address": c.ProxyHealthz, "proxy-metrics-bind-address": c.ProxyMetrics,
	} {
		if value == "" && strings.HasPrefix(key, "proxy-") {
			continue
		}
		host, port, err := net.SplitHostPort(value)
		if err != nil {
			return fmt.Errorf("%s: %q is no address such as 127.0.0.1:6443", key, value)
		}
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%s: %q is no IP address", key, host)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%s: %q is no port", key, port)
		}
	}
	if c.AdvertiseAddress != "" {
		if _, err := reachable(c.AdvertiseAddress); err != nil {
			return fmt.Errorf("advertise-address: %w", err)
		}
	}
	return c.checkNodeIP()
}

func reachable(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.IsUnspecified() || a.IsLoopback() || a.Is6() && a.IsLinkLocalUnicast() || a.Is4In6() {
		return a, fmt.Errorf("%q is no address that others can reach", text)
	}
	return a, nil
}

// NodeIPs are the addresses that were given for this node; none if that is left to the host.
func (c *Config) NodeIPs() (out []netip.Addr) {
	for _, text := range strings.Split(c.NodeIP, ",") {
		if a, err := reachable(strings.TrimSpace(text)); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (c *Config) checkNodeIP() error {
	if c.NodeIP == "" {
		return nil
	}
	for _, text := range strings.Split(c.NodeIP, ",") {
		if _, err := reachable(strings.TrimSpace(text)); err != nil {
			return fmt.Errorf("node-ip: %w", err)
		}
	}
	if all := c.NodeIPs(); len(all) > 2 || len(all) == 2 && all[0].Is4() == all[1].Is4() {
		return fmt.Errorf("node-ip: %q is more than one address of a family", c.NodeIP)
	}
	return nil
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

func (c *Config) checkNode() error {
	if !nodeName.MatchString(c.NodeName) {
		return fmt.Errorf("node-name: %q must be lower-case letters, digits, dots and dashes", c.NodeName)
	}
	if c.MaxPods < 1 || c.MaxPods > 10000 {
		return fmt.Errorf("max-pods: %d is not between 1 and 10000", c.MaxPods)
	}
	if c.PodManifestPath != "" {
		dir, err := filepath.Abs(c.PodManifestPath)
		if err != nil {
			return fmt.Errorf("pod-manifest-path: %w", err)
		}
		c.PodManifestPath = dir
	}
	if _, err := c.Eviction(); err != nil {
		return err
	}
	if _, err := c.Shutdown(); err != nil {
		return err
	}
	for _, least := range []struct {
		key          string
		value, least int
	}{
		{"container-log-max-size", c.LogMaxSize, 1}, {"container-log-max-files", c.LogMaxFiles, 2},
		{"log-keep-hours", c.LogKeepHours, 0}, {"log-keep-size", c.LogKeepSize, 1},
	} {
		if least.value < least.least {
			return fmt.Errorf("%s: %d is too little; %d is the least", least.key, least.value, least.least)
		}
	}
	if c.CRIEndpoint != "" && !strings.HasPrefix(c.CRIEndpoint, "unix:///") {
		return fmt.Errorf("cri-endpoint: %q must be a socket such as unix:///run/containerd/containerd.sock", c.CRIEndpoint)
	}
	if (c.EtcdCertFile == "") != (c.EtcdKeyFile == "") {
		return fmt.Errorf("etcd-certfile and etcd-keyfile go together; give both or neither")
	}
	return nil
}

// ServedBesides are the optional group-versions that are served.
func (c *Config) ServedBesides() []string {
	list, _ := api.ParseRuntimeConfig(c.RuntimeConfig) // Complete has seen to it that they can be read
	return list
}

// EventLife is how long Events are kept; 0: for ever.
func (c *Config) EventLife() (time.Duration, error) {
	life, err := time.ParseDuration(c.EventTTL)
	if err != nil || life != 0 && life < 10*time.Second {
		return 0, fmt.Errorf("event-ttl: %q is no period such as 1h, of 10s at least; 0 keeps events for ever", c.EventTTL)
	}
	return life, nil
}

// Eviction is when and how pods are evicted.
func (c *Config) Eviction() (*threshold.Settings, error) {
	s := &threshold.Settings{MaxPodGrace: int64(c.EvictionMaxTime)}
	var err error
	if s.Hard, err = threshold.Parse(c.EvictionHard); err != nil {
		return nil, fmt.Errorf("eviction-hard: %w", err)
	}
	if s.Soft, err = threshold.Parse(c.EvictionSoft); err != nil {
		return nil, fmt.Errorf("eviction-soft: %w", err)
	}
	if s.Grace, err = threshold.ParseGrace(c.EvictionGrace); err != nil {
		return nil, fmt.Errorf("eviction-soft-grace-period: %w", err)
	}
	if s.Reclaim, err = threshold.ParseReclaim(c.EvictionReclaim); err != nil {
		return nil, fmt.Errorf("eviction-minimum-reclaim: %w", err)
	}
	if s.Hold, err = time.ParseDuration(c.EvictionHold); err != nil || s.Hold < 0 {
		return nil, fmt.Errorf("eviction-pressure-transition-period: %q is no period such as 5m", c.EvictionHold)
	}
	if field, err := s.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return s, nil
}

// Shutdown is how long pods get to end when the host shuts down.
func (c *Config) Shutdown() (shutdown.Periods, error) {
	var periods [2]time.Duration
	for i, of := range []struct{ key, value string }{{"shutdown-grace-period", c.ShutdownGrace}, {"shutdown-grace-period-critical-pods", c.ShutdownGraceCritical}} {
		var err error
		if periods[i], err = time.ParseDuration(of.value); err != nil {
			return nil, fmt.Errorf("%s: %q is no period such as 30s", of.key, of.value)
		}
	}
	if len(c.ShutdownGracePriority) == 0 {
		out, err := shutdown.Of(periods[0], periods[1])
		if err != nil {
			return nil, fmt.Errorf("shutdown-grace-period: %w", err)
		}
		return out, nil
	}
	if periods[0] != 0 || periods[1] != 0 {
		return nil, errors.New("shutdown-grace-period-by-pod-priority: it stands instead of shutdown-grace-period and shutdown-grace-period-critical-pods; give it or them")
	}
	out, err := shutdown.Parse(c.ShutdownGracePriority)
	if err != nil {
		return nil, fmt.Errorf("shutdown-grace-period-by-pod-priority: %w", err)
	}
	return out, nil
}

// RunDir holds sockets and what need not outlive a reboot.
func (c *Config) RunDir() string { return filepath.Join("/run/skiff", c.ClusterName) }

// Kubeconfig is the administrator's.
func (c *Config) Kubeconfig() string { return filepath.Join(c.DataDir, "admin.kubeconfig") }
