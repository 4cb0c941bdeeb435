; The original program's loop, for comparison only: CPU 0 exchanges a token into one cell and waits until it has been
; taken, every other CPU exchanges 0 into that cell without a pause, one line is printed a round. It hangs when a token
; is lost, which is why kgen does it differently. Stands in for experiments/token.asm: all its rounds are one batch.

; in: EBX this CPU's entry
token_work:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
.try:
    cmp dword ptr [results + Results.handshake + Handshake.filled], 0
    jne .done
    xor eax, eax
    xchg dword ptr [edi], eax
    test eax, eax
    jz .try
    inc dword ptr [ebx + Cpu.takes]
    jmp .try
.done:
    ret

; in: EBX phase, EBP plan row
token_batch:
    mov dword ptr [results + Results.handshake + Handshake.filled], 0
    inc dword ptr [results + Results.handshake + Handshake.batch]
    call all_crew
    call release_crew
.round:
    mov edi, dword ptr [results + Results.handshake + Handshake.address]
    mov eax, 1
    xchg dword ptr [edi], eax
    inc dword ptr [results + Results.cpu + Cpu.puts]
.taken:
    mov edx, results + Results.cpu + Cpu.SIZE
    mov ecx, CPUS_NEEDED - 1
    xor eax, eax
.sum:
    add eax, dword ptr [edx + Cpu.takes]
    add edx, Cpu.SIZE
    dec ecx
    jnz .sum
    cmp eax, dword ptr [results + Results.cpu + Cpu.puts]
    je .print
    pause
    jmp .taken
.print:
    call put_table_row
    mov eax, dword ptr [results + Results.cpu + Cpu.puts]
    cmp eax, dword ptr [ebp + Plan.rounds]
    jb .round
    mov dword ptr [ebx + Phase.rounds], eax
    mov dword ptr [results + Results.handshake + Handshake.filled], 1
    mov edi, Cpu.ack
    jmp wait_crew

token_judge:
    clc
    ret

; in: EBX phase; out: EAX rounds up to the next row
row_distance:
    mov eax, 1
    ret
