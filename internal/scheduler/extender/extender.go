// Package extender asks programs outside about pods, over HTTP, as KubeSchedulerConfiguration's extenders: which nodes will do, which are good, which
// pods may give way, and to bind.
//
// It knows nothing of the scheduler's state: objects go in, names come out. Its calls block; whoever calls sees to it that nobody waits for them who need not.
package extender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	config "k8s.io/kube-scheduler/config/v1"
	extender "k8s.io/kube-scheduler/extender/v1"
)

// timeout of a call if the configuration says nothing, as upstream.
const timeout = 5 * time.Second

// longest is the longest answer that is read: 5,000 whole nodes fit several times.
const longest = 256 << 20

// Extender is one of them.
type Extender struct {
	config.Extender
	client *http.Client
}

// New makes the extenders of a configuration ready. No connection is opened yet.
func New(list []config.Extender) (out []*Extender, err error) {
	for k := range list {
		e := &Extender{Extender: list[k]}
		if e.client, err = clientFor(&list[k]); err != nil {
			return nil, fmt.Errorf("extenders[%d].tlsConfig: %w", k, err)
		}
		out = append(out, e)
	}
	return out, nil
}

func clientFor(c *config.Extender) (*http.Client, error) {
	tls := rest.TLSClientConfig{}
	if t := c.TLSConfig; t != nil {
		tls = rest.TLSClientConfig{
			Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
			CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
		}
	}
	if c.EnableHTTPS && tls.CAFile == "" && len(tls.CAData) == 0 {
		tls.Insecure = true // as upstream: an extender without an authority is not verified
	}
	transport, err := rest.TransportFor(&rest.Config{TLSClientConfig: tls})
	if err != nil {
		return nil, err
	}
	limit := c.HTTPTimeout.Duration
	if limit == 0 {
		limit = timeout
	}
	return &http.Client{Transport: transport, Timeout: limit}, nil
}

// Wants says that the extender has to do with a pod: it manages a resource that the pod asks for, or all pods.
func (e *Extender) Wants(p *corev1.Pod) bool {
	if len(e.ManagedResources) == 0 {
		return true
	}
	asks := func(list []corev1.Container) bool {
		return slices.ContainsFunc(list, func(c corev1.Container) bool {
			return slices.ContainsFunc(e.ManagedResources, func(r config.ExtenderManagedResource) bool {
				_, requested := c.Resources.Requests[corev1.ResourceName(r.Name)]
				_, limited := c.Resources.Limits[corev1.ResourceName(r.Name)]
				return requested || limited
			})
		})
	}
	return asks(p.Spec.Containers) || asks(p.Spec.InitContainers)
}

// Filtered is which nodes an extender leaves, and why not the others.
type Filtered struct {
	Kept   []string
	Failed map[string]string // by node
	Final  map[string]string // likewise; those will not do whoever leaves them
}

// Filter asks which of some nodes will do.
func (e *Extender) Filter(ctx context.Context, p *corev1.Pod, nodes []*corev1.Node) (*Filtered, error) {
	if e.FilterVerb == "" {
		return &Filtered{Kept: namesOf(nodes)}, nil
	}
	var result extender.ExtenderFilterResult
	if err := e.call(ctx, e.FilterVerb, e.args(p, nodes), &result); err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, errors.New(result.Error)
	}
	out := &Filtered{Failed: result.FailedNodes, Final: result.FailedAndUnresolvableNodes}
	switch {
	case e.NodeCacheCapable && result.NodeNames != nil:
		out.Kept = *result.NodeNames
	case result.Nodes != nil:
		for i := range result.Nodes.Items {
			out.Kept = append(out.Kept, result.Nodes.Items[i].Name)
		}
	}
	asked := map[string]bool{}
	for _, n := range nodes {
		asked[n.Name] = true
	}
	for _, name := range out.Kept {
		if !asked[name] {
			return nil, fmt.Errorf("extender %q claims a filtered node %q which is not found in the input node list", e.URLPrefix, name)
		}
	}
	return out, nil
}

// Prioritize asks how good nodes are; what it returns is weighted and of the scale of all other scores.
func (e *Extender) Prioritize(ctx context.Context, p *corev1.Pod, nodes []*corev1.Node) (map[string]int64, error) {
	if e.PrioritizeVerb == "" {
		return nil, nil
	}
	var result extender.HostPriorityList
	if err := e.call(ctx, e.PrioritizeVerb, e.args(p, nodes), &result); err != nil {
		return nil, err
	}
	const scale = 100 / extender.MaxExtenderPriority
	scores := make(map[string]int64, len(result))
	for _, one := range result {
		scores[one.Host] += one.Score * e.Weight * scale
	}
	return scores, nil
}

func (e *Extender) args(p *corev1.Pod, nodes []*corev1.Node) *extender.ExtenderArgs {
	args := &extender.ExtenderArgs{Pod: p}
	if e.NodeCacheCapable {
		names := namesOf(nodes)
		args.NodeNames = &names
		return args
	}
	args.Nodes = &corev1.NodeList{Items: make([]corev1.Node, 0, len(nodes))}
	for _, n := range nodes {
		args.Nodes.Items = append(args.Nodes.Items, *n)
	}
	return args
}

func namesOf(nodes []*corev1.Node) []string {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// Victims are who would give way on a node.
type Victims struct {
	Pods       []*corev1.Pod
	Violations int
}

// Preempt asks which of some choices are right, of which on names all pods of the nodes; it returns who is to give way.
func (e *Extender) Preempt(ctx context.Context, p *corev1.Pod, choices map[string]Victims, on map[string][]*corev1.Pod) (map[string]Victims, error) {
	args := &extender.ExtenderPreemptionArgs{Pod: p}
	if e.NodeCacheCapable {
		args.NodeNameToMetaVictims = map[string]*extender.MetaVictims{}
	} else {
		args.NodeNameToVictims = map[string]*extender.Victims{}
	}
	for name, v := range choices {
		if !e.NodeCacheCapable {
			args.NodeNameToVictims[name] = &extender.Victims{Pods: v.Pods, NumPDBViolations: int64(v.Violations)}
			continue
		}
		meta := &extender.MetaVictims{NumPDBViolations: int64(v.Violations)}
		for _, pod := range v.Pods {
			meta.Pods = append(meta.Pods, &extender.MetaPod{UID: string(pod.UID)})
		}
		args.NodeNameToMetaVictims[name] = meta
	}
	var result extender.ExtenderPreemptionResult
	if err := e.call(ctx, e.PreemptVerb, args, &result); err != nil {
		return nil, err
	}
	out := map[string]Victims{}
	for name, v := range result.NodeNameToMetaVictims {
		there, known := on[name]
		if !known {
			return nil, fmt.Errorf("nodeinfo not found for node name %q", name)
		}
		victims := Victims{Violations: int(v.NumPDBViolations)}
		for _, one := range v.Pods {
			k := slices.IndexFunc(there, func(p *corev1.Pod) bool { return string(p.UID) == one.UID })
			if k < 0 {
				return nil, fmt.Errorf("extender: %v claims to preempt pod (UID: %v) on node: %v, but the pod is not found on that node", e.URLPrefix, one, name)
			}
			victims.Pods = append(victims.Pods, there[k])
		}
		if len(victims.Pods) > 0 {
			out[name] = victims
		} else if !e.Ignorable {
			return nil, fmt.Errorf("expected at least one victim pod on node %q", name)
		}
	}
	return out, nil
}

// Bind has the extender bind a pod.
func (e *Extender) Bind(ctx context.Context, p *corev1.Pod, node string) error {
	var result extender.ExtenderBindingResult
	args := &extender.ExtenderBindingArgs{PodName: p.Name, PodNamespace: p.Namespace, PodUID: p.UID, Node: node}
	if err := e.call(ctx, e.BindVerb, args, &result); err != nil {
		return err
	}
	if result.Error != "" {
		return errors.New(result.Error)
	}
	return nil
}

func (e *Extender) call(ctx context.Context, verb string, args, result any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	url := strings.TrimRight(e.URLPrefix, "/") + "/" + verb
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := e.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %s with extender at URL %s, code %d", verb, url, response.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, longest)).Decode(result); err != nil {
		return fmt.Errorf("read the answer of extender %s to %s: %w", e.URLPrefix, verb, err)
	}
	return nil
}
