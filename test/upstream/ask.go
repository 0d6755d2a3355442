package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	configscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

func init() { metrics.Register() }

const plain = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

// ask has kube-scheduler's framework decide.
func ask(ctx context.Context, d *decision) (map[string]ruling, string, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nodes, pods, objects, err := decode(d.Objects)
	if err != nil {
		return nil, "", err
	}
	f, snapshot, err := scheduler(ctx, d.Config, nodes, pods, objects)
	if err != nil {
		return nil, "", err
	}
	state := framework.NewCycleState()
	only, status, _ := f.RunPreFilterPlugins(ctx, state, d.Pod)
	if !status.IsSuccess() {
		return nil, status.Message(), nil
	}
	verdicts := map[string]ruling{}
	infos, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, "", err
	}
	var fit []fwk.NodeInfo
	for _, info := range infos {
		name := info.Node().Name
		if !only.AllNodes() && !only.NodeNames.Has(name) {
			verdicts[name] = ruling{Reasons: []string{"node(s) didn't satisfy plugin(s) [NodeAffinity]"}, Final: true}
			continue
		}
		status := f.RunFilterPlugins(ctx, state.Clone(), d.Pod, info)
		if status.IsSuccess() {
			fit = append(fit, info)
			continue
		}
		if status.Code() == fwk.Error {
			return nil, "", status.AsError()
		}
		verdicts[name] = ruling{Reasons: status.Reasons(), Final: status.Code() == fwk.UnschedulableAndUnresolvable}
	}
	if len(fit) == 0 {
		return verdicts, "", nil
	}
	if status := f.RunPreScorePlugins(ctx, state, d.Pod, fit); !status.IsSuccess() {
		return nil, "", status.AsError()
	}
	scores, status := f.RunScorePlugins(ctx, state, d.Pod, fit)
	if !status.IsSuccess() {
		return nil, "", status.AsError()
	}
	for _, s := range scores {
		var parts []string
		for _, p := range s.Scores {
			parts = append(parts, fmt.Sprintf("%s %d", p.Name, p.Score))
		}
		verdicts[s.Name] = ruling{Score: s.TotalScore, Detail: "(" + strings.Join(parts, ", ") + ")"}
	}
	return verdicts, "", nil
}

func decode(raw []json.RawMessage) (nodes []*corev1.Node, pods []*corev1.Pod, objects []runtime.Object, err error) {
	for _, r := range raw {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(r, nil, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		switch o := o.(type) {
		case *corev1.Node:
			nodes = append(nodes, o)
		case *corev1.Pod:
			pods = append(pods, o)
		}
		objects = append(objects, o)
	}
	return nodes, pods, objects, nil
}

// scheduler is the framework of the first profile, with all it knows in its caches.
func scheduler(ctx context.Context, file string, nodes []*corev1.Node, pods []*corev1.Pod, objects []runtime.Object) (framework.Framework, *cache.Snapshot, error) {
	if file == "" {
		file = plain
	}
	o, _, err := configscheme.Codecs.UniversalDecoder().Decode([]byte(file), nil, nil)
	if err != nil {
		return nil, nil, err
	}
	profile := o.(*config.KubeSchedulerConfiguration).Profiles[0]
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	slices, err := tracker.StartTracker(ctx, tracker.Options{SliceInformer: factory.Resource().V1().ResourceSlices(), KubeClient: client})
	if err != nil {
		return nil, nil, err
	}
	claims := assumecache.NewAssumeCache(klog.Background(), factory.Resource().V1().ResourceClaims().Informer(), "ResourceClaim", "", nil)
	snapshot := cache.NewSnapshot(pods, nodes)
	f, err := frameworkruntime.NewFramework(ctx, plugins.NewInTreeRegistry(), &profile,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSharedDRAManager(dynamicresources.NewDRAManager(ctx, claims, slices, factory)),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithSnapshotSharedLister(snapshot),
		frameworkruntime.WithMutableSnapshotLister(snapshot),
		frameworkruntime.WithParallelism(1),
		frameworkruntime.WithWaitingPods(frameworkruntime.NewWaitingPodsMap()),
		frameworkruntime.WithPodsInPreBind(frameworkruntime.NewPodsInPreBindMap()),
		frameworkruntime.WithPodGroupManager(cache.New(ctx, nil, false, false)),
	)
	if err != nil {
		return nil, nil, err
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, nil, errors.New("no " + kind.String())
		}
	}
	time.Sleep(time.Millisecond) // the handlers of volumes' caches
	return f, snapshot, nil
}
