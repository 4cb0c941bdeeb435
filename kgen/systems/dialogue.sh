while read -r word first rest; do
    case $word in
        '') say "ready" ;;
        file) head -c "$rest" >"/job/$first" && say "took $first" ;;
        run)
            (
                eval "$first $rest" </dev/null >/tmp/said 2>&1
                status=$?
                tail -n 20 /tmp/said | while read -r line; do say "said $line"; done
                say "ended $status"
            ) &
            ;;
        do)
            eval "$rest" </dev/null >/tmp/out 2>&1
            status=$?
            sed "s/^/kgen-lab: out $first /" /tmp/out
            say "done $first $status"
            ;;
        poweroff) poweroff -f ;;
    esac
done
