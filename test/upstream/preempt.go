package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
)

// nobody is nominated anywhere.
type nobody struct{ fwk.PodNominator }

func (nobody) NominatedPodsForNode(string) []fwk.PodInfo { return nil }

// comparePreemption has kube-scheduler choose who gives way, and says where it chooses others: on each node by itself, and of the nodes.
func comparePreemption(ctx context.Context, d *decision) (diffs []string, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nodes, pods, objects, err := decode(d.Objects)
	if err != nil {
		return nil, err
	}
	f, snapshot, err := scheduler(ctx, "", nodes, pods, objects)
	if err != nil {
		return nil, err
	}
	f.SetPodNominator(nobody{})
	args := &config.DefaultPreemptionArgs{MinCandidateNodesPercentage: 100, MinCandidateNodesAbsolute: 1}
	plugin, err := defaultpreemption.New(ctx, args, f, feature.Features{})
	if err != nil {
		return nil, err
	}
	state := framework.NewCycleState()
	if _, status, _ := f.RunPreFilterPlugins(ctx, state, d.Pod); !status.IsSuccess() {
		return nil, status.AsError()
	}
	infos, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	var full []fwk.NodeInfo // where room may be made
	for _, info := range infos {
		if f.RunFilterPlugins(ctx, state.Clone(), d.Pod, info).Code() == fwk.Unschedulable {
			full = append(full, info)
		}
	}
	theirs := map[string]string{}
	best := ""
	if len(full) > 0 {
		var budgets []*policyv1.PodDisruptionBudget
		for _, o := range objects {
			if b, is := o.(*policyv1.PodDisruptionBudget); is {
				budgets = append(budgets, b)
			}
		}
		candidates, _, err := plugin.Evaluator.DryRunPreemption(ctx, state, d.Pod, full, budgets, 0, int32(len(full)))
		if err != nil {
			return nil, err
		}
		for _, c := range candidates {
			text := c.Name()
			for _, v := range c.Victims().Pods {
				text += " " + v.Name
			}
			theirs[c.Name()] = fmt.Sprint(text, ", ", c.Victims().NumPDBViolations, " violated")
		}
		if len(candidates) > 0 {
			best = plugin.Evaluator.SelectCandidate(ctx, candidates).Name()
		}
	}
	if !maps.Equal(d.Victims, theirs) {
		diffs = append(diffs, fmt.Sprintf("Skiff %v, kube-scheduler %v", d.Victims, theirs))
	}
	if best != "" && !slices.Contains(d.Best, best) {
		diffs = append(diffs, fmt.Sprintf("of these Skiff takes %v, kube-scheduler %s", d.Best, best))
	}
	return diffs, nil
}
