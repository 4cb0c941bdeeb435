; 16550 driver, polled (PC16550D data sheet). 8 data bits, no parity, 1 stop bit.

; Probes that the port exists, sets speed and format, finds out whether the FIFO works.
; out: Results.serial 1 where there is a port; clobbers: EAX, ECX, EDX
serial_init:
    ; an absent port floats: the line control register does not keep what is written to it
    mov dx, SERIAL_PORT + 3
    mov al, 0x1B
    out dx, al
    in al, dx
    cmp al, 0x1B
    jne .absent
    mov al, 0x03
    out dx, al
    in al, dx
    cmp al, 0x03
    jne .absent
    ; no interrupts
    mov dx, SERIAL_PORT + 1
    xor eax, eax
    out dx, al
    ; divisor latch
    mov dx, SERIAL_PORT + 3
    mov al, 0x83
    out dx, al
    mov dx, SERIAL_PORT
    mov al, SERIAL_DIVISOR & 0xFF
    out dx, al
    mov dx, SERIAL_PORT + 1
    mov al, SERIAL_DIVISOR >> 8
    out dx, al
    mov dx, SERIAL_PORT + 3
    mov al, 0x03
    out dx, al
    ; DTR, RTS, OUT2
    mov dx, SERIAL_PORT + 4
    mov al, 0x0B
    out dx, al
    ; FIFO on, both cleared; bits 7:6 of IIR read back as ones only where the FIFO works
    mov dx, SERIAL_PORT + 2
    mov al, 0xC7
    out dx, al
    in al, dx
    mov ecx, 1
    and al, 0xC0
    cmp al, 0xC0
    jne .depth
    mov ecx, 16
.depth:
    mov dword ptr [serial_depth], ecx
    mov dword ptr [serial_room], 0
    mov dword ptr [results + Results.serial], 1
    ; what came in before now is no request to stop
    mov ecx, 64
.drain:
    mov dx, SERIAL_PORT + 5
    in al, dx
    test al, 1
    jz .done
    mov dx, SERIAL_PORT
    in al, dx
    dec ecx
    jnz .drain
.done:
    ret
.absent:
    mov dword ptr [results + Results.serial], 0
    ret

; Sends one byte. in: AL; clobbers: nothing
serial_put:
    cmp dword ptr [results + Results.serial], 0
    je .return
    push eax
    push ecx
    push edx
    mov ecx, SERIAL_POLLS
    cmp dword ptr [serial_room], 0
    jne .send
    mov dx, SERIAL_PORT + 5
    push eax
.wait:
    in al, dx
    test al, 0x20
    jnz .empty
    pause
    dec ecx
    jnz .wait
    ; what takes our bytes may be held up on a busy host
    push ebx
    mov eax, SERIAL_MS
    mov ebx, serial_deadline
    call set_deadline
.longer:
    mov dx, SERIAL_PORT + 5
    in al, dx
    test al, 0x20
    jnz .late
    pause
    call check_deadline
    jc .longer
    pop ebx
    ; a port that never drains must not stop the run: go on without it
    mov dword ptr [results + Results.serial], 0
    pop eax
    jmp .out
.late:
    pop ebx
.empty:
    pop eax
    mov ecx, dword ptr [serial_depth]
    mov dword ptr [serial_room], ecx
.send:
    dec dword ptr [serial_room]
    mov dx, SERIAL_PORT
    out dx, al
.out:
    pop edx
    pop ecx
    pop eax
.return:
    ret

; Waits, with a bound, until everything has left the transmitter. clobbers: EAX, ECX, EDX
serial_flush:
    cmp dword ptr [results + Results.serial], 0
    je .done
    mov ecx, SERIAL_POLLS
    mov dx, SERIAL_PORT + 5
.wait:
    in al, dx
    test al, 0x40
    jnz .done
    pause
    dec ecx
    jnz .wait
.done:
    ret

; A byte from outside asks the run to stop. out: Results.stop; clobbers: EAX, EDX
serial_check_stop:
    cmp dword ptr [results + Results.serial], 0
    je .done
    mov dx, SERIAL_PORT + 5
    in al, dx
    test al, 1
    jz .done
    mov dx, SERIAL_PORT
    in al, dx
    ; one that comes late from a host that attends is no such request
    cmp al, ATTEND_BYTE
    je .done
    cmp al, ATTEND_BRIEF_BYTE
    je .done
    mov dword ptr [results + Results.stop], 1
.done:
    ret
